// Two people on two servers, by matrix-js-sdk, the engine of Element Web: invited, rejected, invited again, and a
// conversation with all that goes with it; a space, search, and a third who looks into a room without joining it.
//
//     node js_sdk.mjs URL_OF_ONE URL_OF_ANOTHER
//
// Ends with status 0 when every step was seen by who should see it.

import assert from "node:assert/strict";
import * as sdk from "matrix-js-sdk";

const PASSWORD = "correct horse battery staple";
const DEADLINE = 30_000;

// The library tells of every request; what fails here comes as an exception.
const say = console.log;
for (const level of ["trace", "debug", "log", "info", "warn", "error"]) console[level] = () => {};

const [here, there] = process.argv.slice(2);
const suffix = Date.now().toString(36);

const pause = (ms) => new Promise((resolve) => setTimeout(resolve, ms));

/** Polls until `look` gives something, and gives that. */
async function until(what, look) {
  const end = Date.now() + DEADLINE;
  for (;;) {
    const found = await look();
    if (found) return found;
    if (Date.now() > end) throw new Error(`waited ${DEADLINE / 1000} s in vain for ${what}`);
    await pause(50);
  }
}

async function start(baseUrl, { user_id: userId, access_token: accessToken, device_id: deviceId }) {
  const client = sdk.createClient({ baseUrl, userId, accessToken, deviceId });
  await client.startClient({ initialSyncLimit: 20, lazyLoadMembers: true, threadSupport: true });
  await until(`the first sync of ${userId}`, () => client.isInitialSyncComplete());
  return client;
}

async function signUp(baseUrl, name) {
  const anyone = sdk.createClient({ baseUrl });
  const account = await anyone.registerRequest({
    username: `${name}-${suffix}`,
    password: PASSWORD,
    auth: { type: "m.login.dummy" },
  });
  return start(baseUrl, account);
}

async function logIn(baseUrl, name) {
  const anyone = sdk.createClient({ baseUrl });
  const account = await anyone.loginRequest({
    type: "m.login.password",
    identifier: { type: "m.id.user", user: `${name}-${suffix}` },
    password: PASSWORD,
  });
  return start(baseUrl, account);
}

const membership = (client, roomId) => client.getRoom(roomId)?.getMyMembership();
const memberOf = (client, roomId, userId) => client.getRoom(roomId)?.getMember(userId)?.membership;
const eventOf = (client, roomId, eventId) => client.getRoom(roomId)?.findEventById(eventId);

async function sees(client, roomId, eventId) {
  return until(`${eventId} at ${client.getUserId()}`, () => eventOf(client, roomId, eventId));
}

async function send(client, roomId, body, more = {}) {
  const content = { msgtype: "m.text", body, ...more };
  try {
    return (await client.sendEvent(roomId, null, "m.room.message", content)).event_id;
  } catch (error) {
    // The SDK trips over an event of a thread that /sync tells of before its own request is answered.
    if (!error.message.includes("not a local echo")) throw error;
    const page = await client.createMessagesRequest(roomId, null, 20, "b");
    return page.chunk.find((event) => event.content.body === body).event_id;
  }
}

/** The room's messages from its beginning, by /messages. */
async function history(client, roomId) {
  const events = [];
  let from = null;
  do {
    const page = await client.createMessagesRequest(roomId, from, 5, "b");
    events.unshift(...page.chunk.reverse());
    from = page.end;
  } while (from);
  return events.map((event) => event.event_id);
}

async function steps(alice, bob) {
  const [a, b] = [alice.getUserId(), bob.getUserId()];

  const { room_id: room } = await alice.createRoom({ preset: "private_chat", name: "Tea", invite: [b] });
  await until("the invite", () => membership(bob, room) === "invite");
  await bob.leave(room);
  await until("the rejection, at home", () => membership(bob, room) === "leave");
  await until("the rejection, at the inviter", () => memberOf(alice, room, b) === "leave");
  await alice.invite(room, b);
  await until("the second invite", () => membership(bob, room) === "invite");
  await bob.joinRoom(room);
  await until("the join", () => memberOf(alice, room, b) === "join");
  await until("the name", () => bob.getRoom(room)?.name === "Tea");

  const hello = await send(alice, room, "hello bob");
  await sees(bob, room, hello);
  const answer = await send(bob, room, "hello alice");
  await sees(alice, room, answer);

  await send(alice, room, "* hello, bob", {
    "m.new_content": { msgtype: "m.text", body: "hello, bob" },
    "m.relates_to": { rel_type: "m.replace", event_id: hello },
  });
  await until("the edit", () => eventOf(bob, room, hello).getContent().body === "hello, bob");

  await alice.sendEvent(room, null, "m.reaction", {
    "m.relates_to": { rel_type: "m.annotation", event_id: answer, key: "👍" },
  });
  await until("the reaction", () => {
    const reactions = bob.getRoom(room).relations.getChildEventsForEvent(answer, "m.annotation", "m.reaction");
    return reactions?.getSortedAnnotationsByKey()?.some(([key, events]) => key === "👍" && events.size === 1);
  });

  const relation = { rel_type: "m.thread", event_id: answer, is_falling_back: true };
  const reply = await send(alice, room, "in a thread", {
    "m.relates_to": { ...relation, "m.in_reply_to": { event_id: answer } },
  });
  const thread = await until("the thread", () => bob.getRoom(room).getThread(answer));
  await until("the reply in it", () => thread.events.some((event) => event.getId() === reply));
  await until("its length", () => thread.length === 1);

  const last = await send(alice, room, "read this");
  await until("an unread count", async () => {
    await sees(bob, room, last);
    return bob.getRoom(room).getUnreadNotificationCount("total") > 0;
  });
  await bob.sendReadReceipt(eventOf(bob, room, last));
  await until("the receipt", () => alice.getRoom(room).hasUserReadEvent(b, last));
  // The thread is unread by itself.
  await bob.sendReadReceipt(thread.findEventById(reply));
  await until("no unread count", () => bob.getRoom(room).getUnreadNotificationCount("total") === 0);

  await bob.sendTyping(room, true, 20_000);
  await until("the typing", () => alice.getRoom(room).getMember(b).typing);
  await bob.sendTyping(room, false, 0);
  await until("its end", () => !alice.getRoom(room).getMember(b).typing);

  const seen = await history(alice, room);
  await until("the same history", async () => {
    const other = await history(bob, room);
    return seen.join() === other.join();
  });
  const again = await logIn(there, "bob");
  assert.equal(membership(again, room), "join");
  assert.equal(again.getRoom(room).name, "Tea");
  assert.deepEqual(await history(again, room), seen);
  assert.equal((await sees(again, room, hello)).getContent().body, "hello, bob");
  again.stopClient();

  await bob.leave(room);
  await until("the leave, at home", () => membership(bob, room) === "leave");
  await until("the leave, at the other", () => memberOf(alice, room, b) === "leave");
  assert.equal(memberOf(alice, room, a), "join");
}

async function community(alice, bob, carol) {
  const b = bob.getUserId();
  const via = [alice.getDomain()];
  const { room_id: space } = await alice.createRoom({
    preset: "public_chat",
    name: "House",
    creation_content: { type: "m.space" },
  });
  const rules = { join_rule: "restricted", allow: [{ type: "m.room_membership", room_id: space }] };
  const { room_id: kitchen } = await alice.createRoom({
    preset: "private_chat",
    name: "Kitchen",
    initial_state: [
      { type: "m.room.join_rules", state_key: "", content: rules },
      { type: "m.room.history_visibility", state_key: "", content: { history_visibility: "world_readable" } },
      { type: "m.space.parent", state_key: space, content: { via, canonical: true } },
    ],
  });
  await alice.sendStateEvent(space, "m.space.child", { via }, kitchen);

  await assert.rejects(bob.joinRoom(kitchen, { viaServers: via }), { errcode: "M_FORBIDDEN" });
  await bob.joinRoom(space, { viaServers: via });
  await until("the space", () => bob.getRoom(space)?.isSpaceRoom());
  await until("the join of it", () => memberOf(alice, space, b) === "join");
  const { rooms } = await bob.getRoomHierarchy(space, 10);
  assert.deepEqual(rooms.map((room) => [room.room_id, room.name]), [[space, "House"], [kitchen, "Kitchen"]]);
  const [child] = rooms[0].children_state;
  assert.equal(child.state_key, kitchen);
  await bob.joinRoom(kitchen, { viaServers: child.content.via });
  await until("the join through it", () => memberOf(alice, kitchen, b) === "join");

  const said = await send(alice, kitchen, "the kettle is on");
  await send(alice, kitchen, "the oven is not");
  await sees(bob, kitchen, said);
  for (const client of [alice, bob]) {
    const { results } = await client.searchRoomEvents({ term: "kettle", filter: { rooms: [kitchen] } });
    assert.deepEqual(results.map((result) => result.context.getEvent().getId()), [said]);
  }

  const peeked = await carol.peekInRoom(kitchen);
  assert.equal(peeked.name, "Kitchen");
  assert.ok(peeked.findEventById(said));
  // Its polls begin some time after the room was opened, and miss what was said between.
  await until("news of a room from outside", async () => {
    const news = await send(alice, kitchen, "tea is ready");
    await pause(500);
    return peeked.findEventById(news);
  });
  carol.stopPeeking();
  assert.ok((await history(carol, kitchen)).includes(said));
  assert.equal(memberOf(alice, kitchen, carol.getUserId()), undefined);
  await assert.rejects(carol.peekInRoom(space), { errcode: "M_FORBIDDEN" });
}

process.on("unhandledRejection", () => {});
const alice = await signUp(here, "alice");
const bob = await signUp(there, "bob");
const carol = await signUp(here, "carol");
await steps(alice, bob);
await community(alice, bob, carol);
for (const client of [alice, bob, carol]) client.stopClient();
say("every step was seen");
process.exit(0);
