//! A server behind HTTP, and requests that other servers sign.

use std::sync::{Arc, Mutex};

use actix_web::{
    App,
    http::Method,
    test::{self, TestRequest},
};
use exeunt_core::{
    Object, request_object,
    ruma::{OwnedRoomId, OwnedUserId},
};
use exeunt_fed_api::{FedApi, Options, routes};
use exeunt_http::Service;
use exeunt_room::Preset;
use exeunt_sim::{Mesh, Server};
use serde_json::Value;

/// `a.example` behind HTTP, with a public room of ann's.
pub struct Site {
    pub mesh: Mesh,
    pub room: OwnedRoomId,
    pub ann: OwnedUserId,
    pub service: Service,
    /// The servers that were seen alive.
    pub alive: Arc<Mutex<Vec<String>>>,
}

pub struct Answer {
    pub status: u16,
    pub body: Value,
}

impl Answer {
    pub fn expect(&self, status: u16, errcode: &str) {
        let got = (self.status, self.body["errcode"].as_str().unwrap_or_default());
        assert_eq!(got, (status, errcode), "{}", self.body);
    }

    pub fn ok(self) -> Value {
        assert_eq!(self.status, 200, "{}", self.body);
        self.body
    }
}

pub async fn site() -> Site {
    site_with(Options::default()).await
}

pub async fn site_with(options: Options) -> Site {
    let mesh = Mesh::new(&["a.example", "b.example", "c.example"]);
    let a = mesh.server("a.example");
    let ann = a.register("ann").await;
    let room = a.room(&ann, Preset::Public, "12").await;
    let alive = Arc::new(Mutex::new(Vec::new()));
    let seen = alive.clone();
    let clock = mesh.clock.clone();
    let api = FedApi::new(
        a.rooms.clone(),
        a.users.clone(),
        Arc::new(move |server| seen.lock().unwrap().push(server.to_string())),
        Arc::new(move || clock.now()),
        options,
    );
    let service = Service::new().mount(routes(api));
    Site { mesh, room, ann, service, alive }
}

impl Site {
    pub fn a(&self) -> &Server {
        self.mesh.server("a.example")
    }

    pub fn b(&self) -> &Server {
        self.mesh.server("b.example")
    }

    pub fn c(&self) -> &Server {
        self.mesh.server("c.example")
    }

    pub async fn send(&self, request: TestRequest) -> Answer {
        let app = App::new().configure(|config| self.service.configure(config));
        let app = test::init_service(app).await;
        let response = test::call_service(&app, request.to_request()).await;
        let status = response.status().as_u16();
        let bytes = test::read_body(response).await;
        Answer { status, body: serde_json::from_slice(&bytes).unwrap_or_default() }
    }

    pub async fn get(&self, by: &Server, path: &str) -> Answer {
        self.send(signed(by, "GET", path, None)).await
    }

    pub async fn put(&self, by: &Server, path: &str, body: Value) -> Answer {
        self.send(signed(by, "PUT", path, Some(body))).await
    }

    pub async fn post(&self, by: &Server, path: &str, body: Value) -> Answer {
        self.send(signed(by, "POST", path, Some(body))).await
    }
}

/// A request as it stands, without a signature.
pub fn plain(method: &str, path: &str, body: Option<&Value>) -> TestRequest {
    let method = Method::from_bytes(method.as_bytes()).unwrap();
    let request = TestRequest::with_uri(path).method(method);
    match body {
        Some(body) => request.set_payload(body.to_string()),
        None => request,
    }
}

/// The request that the server's signature covers.
pub fn object(by: &Server, method: &str, path: &str, body: Option<&Value>) -> Object {
    let to = "a.example".try_into().unwrap();
    request_object(method, path, &by.name, Some(to), body)
}

/// The value of the header for a signed request object.
pub fn header(by: &Server, mut object: Object) -> String {
    by.signer.sign_object(&mut object);
    let signature = object["signatures"][by.name.as_str()]["ed25519:sim"].as_str().unwrap();
    let destination = match object.get("destination").and_then(Value::as_str) {
        Some(name) => format!(",destination=\"{name}\""),
        None => String::new(),
    };
    let origin = &by.name;
    format!("X-Matrix origin=\"{origin}\"{destination},key=\"ed25519:sim\",sig=\"{signature}\"")
}

pub fn signed(by: &Server, method: &str, path: &str, body: Option<Value>) -> TestRequest {
    let header = header(by, object(by, method, path, body.as_ref()));
    plain(method, path, body.as_ref()).insert_header(("Authorization", header))
}
