// Two people on two servers in the web client Hydrogen, in headless Chromium, by clicking: log in, create a room,
// invite, reject, accept, chat both ways, react, reply, reload, unread counts, leave.
//
//     node hydrogen.mjs URL_OF_ONE URL_OF_ANOTHER FOLDER_FOR_SCREENSHOTS
//
// Ends with status 0 when every step was seen by who should see it.

import { mkdir, readFile } from "node:fs/promises";
import { createServer } from "node:http";
import { createRequire } from "node:module";
import path from "node:path";
import { build } from "esbuild";
import { chromium } from "playwright-core";

const PASSWORD = "correct horse battery staple";
const DEADLINE = 30_000;
const CHROMIUM = process.env.CHROMIUM ?? "/usr/bin/chromium";
const TYPES = { ".css": "text/css", ".html": "text/html", ".js": "text/javascript", ".svg": "image/svg+xml" };

const [here, there, shots] = process.argv.slice(2);
const suffix = Date.now().toString(36);
const hydrogen = path.dirname(createRequire(import.meta.url).resolve("hydrogen-view-sdk"));
const assets = path.join(hydrogen, "../asset-build/assets");

/** Serves the application on loopback; returns its address. */
async function serve() {
  const entryPoints = [new URL("hydrogen_page.js", import.meta.url).pathname];
  const { outputFiles } = await build({
    entryPoints,
    bundle: true,
    // Olm's, which the page does not load.
    external: ["crypto", "fs", "path"],
    format: "esm",
    logLevel: "error",
    write: false,
  });
  const page = `<!DOCTYPE html><meta charset="utf-8"><title>Hydrogen</title>
    <link rel="stylesheet" href="/theme-element-light.css">
    <body id="app" class="hydrogen"><script type="module" src="/page.js"></script>`;
  const server = createServer(async (request, answer) => {
    const name = new URL(request.url, "http://localhost").pathname;
    try {
      const body =
        name === "/" || name === "/index.html" ? page
        : name === "/page.js" ? outputFiles[0].contents
        : name === "/sw.js" ? await readFile(path.join(hydrogen, "sw.js"))
        : await readFile(path.join(assets, path.basename(name)));
      answer.setHeader("Content-Type", TYPES[path.extname(name || "/") || ".html"] ?? "application/octet-stream");
      answer.end(body);
    } catch {
      answer.writeHead(404).end();
    }
  });
  await new Promise((resolve) => server.listen(0, "127.0.0.1", resolve));
  return `http://localhost:${server.address().port}/`;
}

async function register(homeserver, name) {
  const body = { username: `${name}-${suffix}`, password: PASSWORD, auth: { type: "m.login.dummy" } };
  const answer = await fetch(`${homeserver}/_matrix/client/v3/register`, { method: "POST", body: JSON.stringify(body) });
  if (!answer.ok) throw new Error(`registration: ${answer.status} ${await answer.text()}`);
  return (await answer.json()).user_id;
}

/** Somebody at a browser of their own. */
class Person {
  constructor(name, userId, homeserver, page) {
    Object.assign(this, { name, userId, homeserver, page, taken: 0 });
  }

  static async at(browser, homeserver, name) {
    return Person.withPage(browser, homeserver, name, await register(homeserver, name));
  }

  /** The same person at another browser, with nothing of this one's. */
  again(browser) {
    return Person.withPage(browser, this.homeserver, this.name, this.userId);
  }

  static async withPage(browser, homeserver, name, userId) {
    const context = await browser.newContext({ ignoreHTTPSErrors: true, viewport: { width: 1100, height: 700 } });
    const page = await context.newPage();
    page.setDefaultTimeout(DEADLINE);
    page.on("dialog", (dialog) => dialog.accept());
    return new Person(name, userId, homeserver, page);
  }

  async logIn(address) {
    await this.page.goto(`${address}?homeserver=${encodeURIComponent(this.homeserver)}`);
    await this.page.fill("#username", `${this.name}-${suffix}`);
    await this.page.fill("#password", PASSWORD);
    await this.page.click("button[type=submit]");
    await this.page.waitForSelector(".RoomList");
  }

  shoot(what) {
    this.taken += 1;
    return this.page.screenshot({ path: path.join(shots, `${this.name}-${this.taken}-${what}.png`) });
  }

  async createRoom(name) {
    await this.page.click(".LeftPanel .create");
    await this.page.click("text=Create Room");
    await this.page.fill("#name", name);
    await this.page.uncheck("#isEncrypted");
    await this.page.click(".CreateRoomView button[type=submit]");
    await this.page.waitForSelector("text=Choose a room on the left side.");
    await this.open(name);
    await this.page.waitForSelector(".MessageComposer textarea");
  }

  async invite(userId) {
    await this.page.click(".room-options");
    await this.page.click("text=Room details");
    await this.page.click("button:has-text('People')");
    await this.page.click("text=Invite to this room");
    await this.page.fill(".InvitePanelView__input", userId);
    await this.page.click(".InvitePanelView__btn");
  }

  open(room) {
    return this.page.click(`.RoomList a:has-text("${room}")`);
  }

  closeRoom() {
    return this.page.goto(this.page.url().replace(/\/room\/.*/, ""));
  }

  /** What the list of rooms says is unread: a number, or nothing. */
  async unread(room) {
    const badge = this.page.locator(`.RoomList a:has-text("${room}") .badge`);
    await badge.waitFor({ state: "attached" });
    return (await badge.isVisible()) ? badge.innerText() : "";
  }

  showsUnread(room, count) {
    return this.until(`"${count}" unread`, async () => (await this.unread(room)) === count);
  }

  answer(button) {
    return this.page.click(`.InviteView_buttonRow button:has-text("${button}")`);
  }

  async say(text) {
    await this.page.fill(".MessageComposer textarea", text);
    await this.page.press(".MessageComposer textarea", "Enter");
    await this.sees(text);
  }

  message(text) {
    return this.page.locator(`.Timeline_message:has-text("${text}")`).last();
  }

  sees(text) {
    return this.message(text).waitFor();
  }

  async menu(text) {
    await this.message(text).hover();
    await this.message(text).locator(".Timeline_messageOptions").click();
  }

  /** The timeline's texts, in order. */
  read() {
    return this.page.locator(".Timeline_messageBody").allInnerTexts();
  }

  async until(what, look) {
    const end = Date.now() + DEADLINE;
    while (!(await look())) {
      if (Date.now() > end) throw new Error(`${this.userId} waited ${DEADLINE / 1000} s in vain for ${what}`);
      await this.page.waitForTimeout(100);
    }
  }
}

/** What bob has not read is counted in his list of rooms, after a reload and at another browser too, until he reads. */
async function unread(alice, bob) {
  // Hydrogen takes a room for read once it has been open for two seconds.
  await bob.showsUnread("Tea", "");
  await bob.closeRoom();
  await alice.say("one lump");
  await alice.say("or two");
  await bob.showsUnread("Tea", "2");
  await bob.shoot("unread");
  await bob.page.reload();
  await bob.showsUnread("Tea", "2");
  const other = await bob.again(browser);
  await other.logIn(address);
  await other.showsUnread("Tea", "2");
  await bob.open("Tea");
  await bob.showsUnread("Tea", "");
  // The receipt is his, whatever the browser.
  await other.showsUnread("Tea", "");
  await bob.page.reload();
  await bob.page.waitForSelector(".Timeline_message");
  await bob.showsUnread("Tea", "");
  await other.page.reload();
  await other.showsUnread("Tea", "");
  await bob.shoot("read");
  await other.page.context().close();
}

async function steps(alice, bob) {
  await alice.createRoom("Tea");
  await alice.invite(bob.userId);
  await bob.open("Tea");
  await bob.shoot("invited");
  await bob.answer("Reject");
  await bob.until("the invite to go", async () => (await bob.page.locator(".RoomList a").count()) === 0);
  await bob.shoot("rejected");
  await alice.page.locator(`.AnnouncementView:has-text("declined the invitation")`).first().waitFor();
  await alice.shoot("told");

  await alice.invite(bob.userId);
  await bob.open("Tea");
  await bob.answer("Accept");
  await bob.page.waitForSelector(".MessageComposer textarea");

  await alice.say("hello bob");
  await bob.sees("hello bob");
  await bob.say("hello alice");
  await alice.sees("hello alice");

  await alice.menu("hello alice");
  await alice.page.click(".quick-reactions button >> nth=0");
  await bob.message("hello alice").locator(".Timeline_messageReactions button").waitFor();
  await bob.menu("hello bob");
  await bob.page.click(".menu >> text=Reply");
  await bob.say("with milk");
  await alice.sees("with milk");
  await alice.shoot("talk");
  await bob.shoot("talk");

  const read = (await bob.read()).join("\n");
  await bob.page.reload();
  await bob.page.waitForSelector(".Timeline_message");
  await bob.until("the same after a reload", async () => (await bob.read()).join("\n") === read);
  await bob.shoot("reloaded");

  await unread(alice, bob);

  await bob.page.click(".room-options");
  await bob.page.click("text=Leave room");
  await alice.page.locator(`.AnnouncementView:has-text("left")`).first().waitFor();
  await alice.shoot("left");
}

await mkdir(shots, { recursive: true });
const address = await serve();
const browser = await chromium.launch({ executablePath: CHROMIUM, args: ["--no-sandbox"] });
const people = [];
try {
  people.push(await Person.at(browser, here, "alice"));
  people.push(await Person.at(browser, there, "bob"));
  for (const person of people) await person.logIn(address);
  await steps(...people);
  console.log("every step was seen");
} catch (error) {
  for (const person of people) await person.shoot("failed");
  throw error;
} finally {
  await browser.close();
}
process.exit(0);
