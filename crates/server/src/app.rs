//! The composition root: everything is made here, once, and handed to whom needs it.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
};

use exeunt_client_api::{ClientApi, NoticeOptions, Rates, Support, SupportContact, Turn};
use exeunt_fed_api::FedApi;
use exeunt_fed_client::FederationClient;
use exeunt_http::Service;
use exeunt_room::Rooms;
use exeunt_sender::{Backoff, DepartureOptions, Departures, Sender};
use exeunt_store::Store;
use exeunt_users::{AppServices, RegistrationPolicy, Users};
use ring::rand::SystemRandom;
use ruma::ServerName;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;

use crate::{
    adapters::{Federation, Runner, Wakers, alive},
    app_services, clock,
    config::{Config, Listener},
    failure::Failure,
    listen::{Bound, Listening},
    metrics::{self, Metrics},
    signing_key,
    tls::Identity,
};

/// The database's folder in the data folder.
pub fn database(folder: &Path) -> PathBuf {
    folder.join("db")
}

/// Milliseconds since the epoch, as every service takes it.
type Clock = Arc<dyn Fn() -> u64 + Send + Sync>;

/// Runs the server until SIGTERM or SIGINT.
pub async fn serve(config: Config) -> Result<(), Failure> {
    let mut terminate = signal(SignalKind::terminate()).map_err(Failure::Runtime)?;
    let mut interrupt = signal(SignalKind::interrupt()).map_err(Failure::Runtime)?;
    let (stop, stopping) = watch::channel(false);

    // Sockets first: an address that is taken is found out before anything is written or sent.
    let bound = bind(&config)?;
    let app_services = app_services::load(&config)?;
    let store = Store::open(&database(&config.store.path))?;
    exeunt_store::resume_purges(&store).await?;
    exeunt_room::clear_unfinished_joins(&store).await?;
    exeunt_room::upgrade_store(&store).await?;
    let metrics = Metrics::install(store.clone())?;
    let services = Services::start(&config, &store, app_services.clone(), metrics, stopping)?;
    services.client_api.users.register_senders(&app_services).await.map_err(Failure::User)?;
    let mut listening = Vec::new();
    for (listener, bound) in config.listeners.iter().zip(bound) {
        listening.push(bound.serve(services.on(listener, &config), store.clone())?);
    }
    match Bound::operator(&config.store.path) {
        Ok(bound) => {
            let routes = exeunt_client_api::operator_routes(services.client_api.clone());
            listening.push(bound.serve(Service::new().mount(routes), store.clone())?);
        }
        Err(error) => tracing::warn!(%error, "no socket for commands in the data folder"),
    }
    for listener in &listening {
        tracing::info!(name = %config.server.name, address = %listener.address(), "listening");
    }

    tokio::select! {
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
    tracing::info!("stopping");
    futures_util::future::join_all(listening.into_iter().map(Listening::stop)).await;
    stop.send_replace(true);
    let closed = tokio::task::spawn_blocking(move || store.close()).await;
    if let Err(error) = closed {
        tracing::error!(%error, "closing the store failed; what was acknowledged is on disk");
    }
    tracing::info!("stopped");
    Ok(())
}

fn bind(config: &Config) -> Result<Vec<Bound>, Failure> {
    let name = public_name(config);
    config
        .listeners
        .iter()
        .map(|listener| {
            let identity = match (&listener.certificate, &listener.key) {
                (Some(certificate), Some(key)) => Some(Identity::load(certificate, key)?),
                _ => None,
            };
            if let Some(identity) = &identity
                && listener.serves.federation
            {
                for complaint in identity.complaints(name, clock::now_ms()) {
                    tracing::warn!("{complaint}");
                }
            }
            Bound::new(listener.bind, identity.map(|identity| identity.config()))
        })
        .collect()
}

/// The name that a certificate for federation must have.
fn public_name(config: &Config) -> &ServerName {
    config.well_known.server.as_ref().map_or(&config.server.name, |server| server.as_name())
}

/// All that runs behind the listeners.
struct Services {
    client_api: ClientApi,
    fed_api: FedApi,
    metrics: Metrics,
}

impl Services {
    fn start(
        config: &Config,
        store: &Store,
        app_services: AppServices,
        metrics: Metrics,
        stopping: watch::Receiver<bool>,
    ) -> Result<Self, Failure> {
        let clock: Clock = Arc::new(clock::now_ms);
        let rng = SystemRandom::new();
        let name = config.server.name.clone();
        let signer = Arc::new(signing_key::load_or_create(&config.store.path, name.clone(), &rng)?);
        let client = config.federation.enabled.then(|| {
            let mut options = exeunt_fed_client::Options::new(clock.clone());
            options.extra_ca = config.federation.extra_ca.clone();
            FederationClient::new(signer.clone(), options)
        });
        let federation = Arc::new(Federation(client.transpose()?));
        let users = Users::new(store.clone(), name.clone(), clock.clone(), rng.clone());

        let jitter: exeunt_sender::Jitter = Arc::new(rand::random::<f64>);
        let departures = Departures::new(
            store.clone(),
            clock.clone(),
            jitter.clone(),
            departure_options(config),
            stopping.clone(),
        );
        let sender = Sender::start(
            store.clone(),
            federation.clone(),
            clock.clone(),
            jitter,
            name,
            sender_options(config),
            stopping,
        );
        let woken = departures.clone();
        sender.on_reached(move |server| woken.alive(server));
        let alive = alive(&sender, &departures);
        let rooms = Rooms::new(
            store.clone(),
            signer,
            federation,
            Arc::new(Wakers { sender, departures: departures.clone() }),
            clock.clone(),
            room_options(config),
        );
        departures.start(Arc::new(Runner(rooms.clone())));
        rooms.start_inbound();
        let jobs = rooms.clone();
        tokio::spawn(async move {
            match jobs.resume_jobs().await {
                Ok(0) => {}
                Ok(count) => tracing::info!(count, "going on with departures from everywhere"),
                Err(error) => tracing::error!(%error, "cannot go on with departures"),
            }
        });
        rooms.start_probes();
        rooms.start_sweeps();

        let fed_options = exeunt_fed_api::Options {
            server_version: env!("CARGO_PKG_VERSION").to_owned(),
            well_known_server: config.well_known.server.as_ref().map(|s| s.as_name().to_string()),
            public_rooms: config.federation.public_rooms,
        };
        let fed_api = FedApi::new(rooms.clone(), users.clone(), alive, clock.clone(), fed_options);
        let client_api =
            ClientApi::new(rooms, users, client_options(config, app_services), clock, rng);
        Ok(Self { client_api, fed_api, metrics })
    }

    /// What a listener answers.
    fn on(&self, listener: &Listener, config: &Config) -> Service {
        let mut service = Service::new();
        if listener.serves.client {
            service = service.mount(exeunt_client_api::routes(self.client_api.clone()));
        }
        if listener.serves.federation && config.federation.enabled {
            service = service.mount(exeunt_fed_api::routes(self.fed_api.clone()));
        }
        if listener.serves.metrics {
            service = service.mount(metrics::routes(self.metrics.clone()));
        }
        service
    }
}

fn room_options(config: &Config) -> exeunt_room::Options {
    exeunt_room::Options {
        default_version: config.rooms.default_version,
        leave_deadline: config.federation.leave_deadline,
        trusted_key_servers: config.federation.trusted_key_servers.0.clone(),
        presence: config.presence.enabled,
        keep_departures: config.rooms.keep_departures,
        keep_signatures: config.rooms.keep_signatures,
        ..exeunt_room::Options::default()
    }
}

fn sender_options(config: &Config) -> exeunt_sender::Options {
    let federation = &config.federation;
    exeunt_sender::Options {
        backoff: Backoff { first: federation.retry_min, last: federation.retry_max },
        ..exeunt_sender::Options::default()
    }
}

fn departure_options(config: &Config) -> DepartureOptions {
    let federation = &config.federation;
    let (first, last) = (federation.departure_retry_min, federation.departure_retry_max);
    DepartureOptions { backoff: Backoff { first, last }, ..DepartureOptions::default() }
}

fn client_options(config: &Config, app_services: AppServices) -> exeunt_client_api::Options {
    let registration = &config.registration;
    let reveal = |secret: &crate::config::Secret| secret.reveal().to_owned();
    exeunt_client_api::Options {
        registration: RegistrationPolicy {
            open: registration.open,
            token: registration.token.as_ref().map(reveal),
            shared_secret: registration.shared_secret.as_ref().map(reveal),
        },
        app_services,
        well_known_client: config.well_known.client.as_ref().map(|url| url.as_str().to_owned()),
        support: support(&config.support),
        turn: Turn {
            uris: config.turn.uris.0.clone(),
            shared_secret: config.turn.shared_secret.as_ref().map(reveal).unwrap_or_default(),
            life: config.turn.credentials_life,
        },
        notices: NoticeOptions {
            localpart: config.notices.localpart.as_str().to_owned(),
            name: config.notices.name.as_str().to_owned(),
        },
        rates: rates(config),
    }
}

fn rates(config: &Config) -> Rates {
    let limits = &config.rate_limits;
    if !limits.enabled {
        return Rates::default();
    }
    Rates {
        login: limits.login.0,
        registration: limits.registration.0,
        sending: limits.sending.0,
        joins: limits.joins.0,
        invites: limits.invites.0,
        others: limits.others.0,
    }
}

fn support(config: &crate::config::Support) -> Support {
    let text = |text: &crate::config::Text| text.as_str().to_owned();
    let contacts = [
        ("m.role.admin", &config.admin_email, &config.admin_user),
        ("m.role.security", &config.security_email, &config.security_user),
    ];
    let contacts = contacts.into_iter().map(|(role, email, user)| SupportContact {
        role,
        email: email.as_ref().map(text),
        user: user.clone(),
    });
    Support {
        contacts: contacts.filter(|c| c.email.is_some() || c.user.is_some()).collect(),
        page: config.page.as_ref().map(|url| url.as_str().to_owned()),
    }
}
