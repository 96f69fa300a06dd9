/*
 * The C interface as C sees it: every function, its errors, and its misuse as far as the header promises
 * that it is found. Run plainly, under AddressSanitizer and under valgrind: `cargo xtask native`.
 */

#include "support.h"

static int32_t reversed(zb_frame *frame, void *user) {
  uint8_t *answer;
  (void)user;
  if (equals(frame->data, frame->len, "mute")) return 0;
  CHECK(zb_frame_resize(frame, 1) == ZB_UNSUPPORTED);
  CHECK(zb_frame_reply(frame, frame->len + 1, &answer) == ZB_OK);
  for (size_t i = 0; i < frame->len; i++) answer[i] = frame->data[frame->len - 1 - i];
  answer[frame->len] = '.';
  CHECK(zb_frame_reply(frame, 1, &answer) == ZB_INVALID_STATE);
  return 0;
}

/* Everything that a client can do with an answering server. */
static void in_place(void) {
  const char *channel = name("place");
  counters counted = {0, 0};
  zb_server_config config = server_config(ZB_SERVER_IN_PLACE);
  config.metadata = (const uint8_t *)"server";
  config.metadata_len = 6;
  zb_server *server = serve(channel, upper, &counted, config);
  zb_client_config wanted = client_config(ZB_CHANNEL_ANY);
  wanted.metadata = (const uint8_t *)"the client";
  wanted.metadata_len = 10;
  zb_client *client = connected(channel, &wanted);
  zb_view view, other;

  OK(zb_client_call(client, BYTES("hello"), PATIENCE, &view));
  CHECK(equals(view.data, view.len, "HELLO") && view.sequence == 1);
  /* Another call while an answer is held: each keeps its bytes. */
  OK(zb_client_call(client, BYTES("meta"), PATIENCE, &other));
  CHECK(equals(other.data, other.len, "the client") && equals(view.data, view.len, "HELLO"));
  FAILS(ZB_INVALID_STATE, zb_client_reconnect(client, 0, NULL));
  zb_view_release(&view);
  CHECK(view.data == NULL);
  zb_view_release(&view); /* does nothing */
  zb_view_release(&other);

  uint64_t first, second;
  OK(zb_client_send(client, BYTES("first"), &first));
  zb_buffer buffer, refused;
  OK(zb_client_acquire(client, 4, 100, 64, &buffer));
  CHECK(buffer.len == 4 && buffer.capacity >= 100 && (uintptr_t)buffer.data % 64 == 0);
  FAILS(ZB_CLAIM_OPEN, zb_client_acquire(client, 4, 0, 0, &refused));
  FAILS(ZB_CLAIM_OPEN, zb_client_send(client, BYTES("x"), &second));
  zb_buffer_abandon(&refused);
  memcpy(buffer.data, "grow", 4);
  buffer.len = buffer.capacity + 1;
  FAILS(ZB_TOO_LARGE, zb_buffer_commit(&buffer, &second));
  buffer.len = 4;
  OK(zb_buffer_commit(&buffer, &second));
  CHECK(second == first + 1 && buffer.data == NULL);
  FAILS(ZB_INVALID_STATE, zb_buffer_commit(&buffer, NULL));
  OK(zb_client_receive(client, second, PATIENCE, &view));
  CHECK(equals(view.data, view.len, "GROWN!!!") && view.sequence == second);
  zb_view_release(&view);
  OK(zb_client_receive(client, 0, PATIENCE, &view));
  CHECK(equals(view.data, view.len, "FIRST") && view.sequence == first);
  zb_view_release(&view);
  OK(zb_client_acquire(client, 4, 0, 0, &buffer));
  zb_buffer_abandon(&buffer);

  FAILS(ZB_HANDLER_FAILED, zb_client_call(client, BYTES("fail"), PATIENCE, &view));
  const zb_error *error = zb_last_error();
  CHECK(view.data == NULL && error->handler_status == 1 && error->sequence > second);
  /* As much of the message as fits the slot of a request of 4 bytes. */
  CHECK(error->detail_len >= 4 && strncmp(error->detail, "refused on request", error->detail_len) == 0);
  FAILS(ZB_HANDLER_FAILED, zb_client_call(client, BYTES("code"), PATIENCE, &view));
  CHECK(says("the handler returned 42"));

  FAILS(ZB_UNKNOWN_SEQUENCE, zb_client_receive(client, 12345, 0, &view));
  CHECK(zb_last_error()->sequence == 12345);
  FAILS(ZB_TIMEOUT, zb_client_receive(client, 0, 1000, &view));
  CHECK(zb_last_error()->asked == 1000 && !zb_client_cancel(client, 12345));
  static uint8_t big[1 << 17];
  FAILS(ZB_TOO_LARGE, zb_client_send(client, big, sizeof big, &first));
  CHECK(zb_last_error()->asked == sizeof big && zb_last_error()->allowed < sizeof big);

  zb_client_state state = {sizeof state, 0, 0, 0, 0};
  OK(zb_client_inspect(client, &state));
  CHECK(state.is_in_place == 1 && state.in_flight == 0 && state.max_request_size >= 1 << 15);
  uint8_t metadata[6];
  size_t len;
  OK(zb_client_server_metadata(client, NULL, 0, &len));
  FAILS(ZB_TOO_LARGE, zb_client_server_metadata(client, metadata, 5, &len));
  OK(zb_client_server_metadata(client, metadata, 6, &len));
  CHECK(equals(metadata, len, "server"));
  CHECK(zb_client_is_server_connected(client) && zb_server_is_client_connected(server));

  OK(zb_server_stop(server));
  CHECK(!zb_server_is_running(server) && !zb_client_is_server_connected(client));
  CHECK(counted.releases == 1 && counted.calls >= 6);
  OK(zb_server_stop(server));
  FAILS(ZB_PEER_CLOSED, zb_client_call(client, BYTES("hello"), PATIENCE, &view));
  zb_client_close(client);
  zb_server_close(server);
  CHECK(counted.releases == 1);
}

/* Answers outlive their client if they were detached, and keep it if they were not. */
static void views_and_lives(void) {
  const char *channel = name("views");
  counters counted = {0, 0};
  zb_server *server = serve(channel, upper, &counted, server_config(ZB_SERVER_IN_PLACE));
  zb_client *client = connected(channel, NULL);
  zb_view kept, detached, moved;
  OK(zb_client_call(client, BYTES("kept"), PATIENCE, &kept));
  OK(zb_client_call(client, BYTES("detached"), PATIENCE, &detached));
  OK(zb_view_detach(&detached));
  OK(zb_view_detach(&detached));
  moved = kept;
  zb_buffer buffer;
  OK(zb_client_acquire(client, 8, 0, 0, &buffer));
  zb_client_close(client);
  CHECK(equals(moved.data, moved.len, "KEPT"));
  zb_view_release(&moved);
  FAILS(ZB_INVALID_STATE, zb_buffer_commit(&buffer, NULL)); /* frees the client, as its last guard */
  CHECK(equals(detached.data, detached.len, "DETACHED"));
  zb_view_release(&detached);
  zb_server_close(server);
  CHECK(counted.releases == 1);
}

/* A server that takes requests itself. */
static void pulling(void) {
  const char *channel = name("pull");
  zb_server_config config = server_config(ZB_SERVER_IN_PLACE);
  zb_server *server;
  zb_client *client;
  OK(zb_server_create(channel, &config, &server));
  OK(zb_client_connect(channel, NULL, PATIENCE, &client));
  zb_frame frame, second;
  zb_view view;
  uint64_t sequence[4];
  for (int i = 0; i < 4; i++) OK(zb_client_send(client, BYTES("abcd"), &sequence[i]));

  OK(zb_server_receive(server, PATIENCE, &frame));
  CHECK(frame.sequence == sequence[0] && equals(frame.data, frame.len, "abcd"));
  FAILS(ZB_INVALID_STATE, zb_server_receive(server, 0, &second));
  FAILS(ZB_INVALID_STATE, zb_frame_respond(&second));
  OK(zb_frame_detach(&frame));
  OK(zb_frame_detach(&frame));
  OK(zb_server_receive(server, PATIENCE, &second));
  zb_frame stale = second;
  second.data[0] = 'A';
  OK(zb_frame_respond(&second));
  FAILS(ZB_INVALID_STATE, zb_frame_respond(&second));
  OK(zb_client_receive(client, 0, PATIENCE, &view));
  CHECK(view.sequence == sequence[1] && equals(view.data, view.len, "Abcd"));
  zb_view_release(&view);
  OK(zb_frame_resize(&frame, 2));
  OK(zb_frame_respond(&frame));
  OK(zb_client_receive(client, sequence[0], PATIENCE, &view));
  CHECK(equals(view.data, view.len, "ab"));
  zb_view_release(&view);

  OK(zb_server_receive(server, PATIENCE, &frame));
  FAILS(ZB_INVALID_STATE, zb_frame_respond(&stale));
  OK(zb_frame_fail(&frame, "no", 2));
  FAILS(ZB_HANDLER_FAILED, zb_client_receive(client, sequence[2], PATIENCE, &view));
  CHECK(strcmp(zb_last_error()->detail, "no") == 0 && zb_last_error()->sequence == sequence[2]);
  OK(zb_client_send(client, BYTES("abcd"), &sequence[2]));
  OK(zb_server_receive(server, PATIENCE, &frame));
  zb_frame_abandon(&frame);
  zb_frame_abandon(&frame);
  zb_frame_abandon(NULL);
  FAILS(ZB_HANDLER_FAILED, zb_client_receive(client, sequence[3], PATIENCE, &view));
  CHECK(zb_last_error()->handler_status == 3);
  /* The last one is dropped unanswered. */
  OK(zb_server_receive(server, PATIENCE, &frame));
  OK(zb_server_stop(server));
  memcpy(frame.data, "mine", 4); /* still there */
  FAILS(ZB_INVALID_STATE, zb_frame_respond(&frame));
  FAILS(ZB_HANDLER_FAILED, zb_client_receive(client, sequence[2], PATIENCE, &view));
  CHECK(zb_last_error()->handler_status == 3);
  FAILS(ZB_CLOSED, zb_server_receive(server, 0, &frame));
  zb_client_close(client);
  zb_server_close(server);
  /* A frame that is received keeps the handle of its server, not the server. */
  OK(zb_server_create(channel, &config, &server));
  OK(zb_client_connect(channel, NULL, PATIENCE, &client));
  OK(zb_client_send(client, BYTES("abcd"), &sequence[0]));
  OK(zb_server_receive(server, PATIENCE, &frame));
  zb_server_close(server);
  FAILS(ZB_HANDLER_FAILED, zb_client_receive(client, sequence[0], PATIENCE, &view));
  zb_client_close(client);
  memcpy(frame.data, "mine", 4); /* still there */
  FAILS(ZB_INVALID_STATE, zb_frame_respond(&frame)); /* frees the server */
}

static void *call_often(void *client) {
  for (int i = 0; i < 200; i++) {
    zb_view view;
    char text[16];
    int len = snprintf(text, sizeof text, "n%d", i);
    OK(zb_client_call(client, (const uint8_t *)text, (size_t)len, PATIENCE, &view));
    text[0] = 'N';
    CHECK(equals(view.data, view.len, text));
    zb_view_release(&view);
  }
  return NULL;
}

/* Several workers, and a client for many threads; over both kinds of channels. */
static void threads(void) {
  const char *channel = name("many");
  counters counted = {0, 0};
  zb_server_config config = server_config(ZB_SERVER_IN_PLACE);
  config.workers = 3;
  zb_server *server = serve(channel, upper, &counted, config);
  zb_client_config wanted = client_config(ZB_CHANNEL_IN_PLACE);
  wanted.threads = ZB_THREADS_MANY;
  wanted.wait = ZB_WAIT_PARK;
  zb_client *client = connected(channel, &wanted);
  pthread_t thread[4];
  for (int i = 0; i < 4; i++) CHECK(pthread_create(&thread[i], NULL, call_often, client) == 0);
  for (int i = 0; i < 4; i++) CHECK(pthread_join(thread[i], NULL) == 0);
  zb_view view;
  zb_buffer buffer;
  uint64_t sequence;
  OK(zb_client_acquire(client, 3, 0, 0, &buffer));
  FAILS(ZB_CLAIM_OPEN, zb_client_send(client, BYTES("x"), &sequence));
  memcpy(buffer.data, "any", 3);
  buffer.len = buffer.capacity + 1;
  FAILS(ZB_TOO_LARGE, zb_buffer_commit(&buffer, &sequence));
  buffer.len = 3;
  OK(zb_buffer_commit(&buffer, &sequence));
  OK(zb_client_receive(client, 0, PATIENCE, &view));
  CHECK(view.sequence == sequence && equals(view.data, view.len, "ANY"));
  zb_view_release(&view);
  OK(zb_client_acquire(client, 3, 0, 0, &buffer));
  zb_buffer_abandon(&buffer);
  zb_reconnected report;
  OK(zb_client_reconnect(client, 0, &report));
  CHECK(report.resent_count == 0 && report.lost_count == 0);
  OK(zb_client_send(client, BYTES("one"), &sequence));
  OK(zb_client_receive(client, sequence, PATIENCE, &view));
  zb_client_close(client);
  CHECK(equals(view.data, view.len, "ONE"));
  zb_view_release(&view);
  zb_server_close(server);
  CHECK(counted.calls == 802 && counted.releases == 1);

  /* The same over two buffers. */
  server = serve(name("many-two"), upper, &counted, server_config(ZB_SERVER_MUTABLE));
  wanted.channel = ZB_CHANNEL_TWO_BUFFERS;
  client = connected(name("many-two"), &wanted);
  for (int i = 0; i < 4; i++) CHECK(pthread_create(&thread[i], NULL, call_often, client) == 0);
  for (int i = 0; i < 4; i++) CHECK(pthread_join(thread[i], NULL) == 0);
  OK(zb_client_acquire(client, 3, 0, 0, &buffer));
  memcpy(buffer.data, "any", 3);
  buffer.len = 4;
  FAILS(ZB_INVALID_STATE, zb_buffer_commit(&buffer, &sequence)); /* of another length: abandoned */
  OK(zb_client_acquire(client, 3, 0, 0, &buffer));
  memcpy(buffer.data, "two", 3);
  OK(zb_buffer_commit(&buffer, &sequence));
  OK(zb_client_receive(client, sequence, PATIENCE, &view));
  zb_client_close(client);
  CHECK(equals(view.data, view.len, "TWO"));
  zb_view_release(&view);
  zb_server_close(server);
  CHECK(counted.calls == 1603 && counted.releases == 2);
}

/* Version 1: both servers of two buffers. */
static void two_buffers(void) {
  counters counted = {0, 0};
  const char *mutable_channel = name("mutable"), *immutable_channel = name("immutable");
  zb_server *edits = serve(mutable_channel, upper, &counted, server_config(ZB_SERVER_MUTABLE));
  zb_server *replies = serve(immutable_channel, reversed, &counted, server_config(ZB_SERVER_IMMUTABLE));
  zb_client_config wanted = client_config(ZB_CHANNEL_ANY);
  wanted.metadata = (const uint8_t *)"m";
  wanted.metadata_len = 1;
  zb_client *client = connected(mutable_channel, &wanted);
  zb_view view, other;
  OK(zb_client_call(client, BYTES("hello"), PATIENCE, &view));
  OK(zb_client_call(client, BYTES("again"), PATIENCE, &other));
  CHECK(equals(view.data, view.len, "HELLO") && equals(other.data, other.len, "AGAIN"));
  zb_view_release(&view);
  zb_view_release(&other);
  zb_buffer buffer;
  uint64_t sequence;
  OK(zb_client_acquire(client, 3, 0, 0, &buffer));
  memcpy(buffer.data, "abc", 3);
  OK(zb_buffer_commit(&buffer, &sequence));
  OK(zb_client_receive(client, sequence, PATIENCE, &view));
  CHECK(equals(view.data, view.len, "ABC"));
  zb_view_release(&view);
  FAILS(ZB_EMPTY_FRAME, zb_client_call(client, NULL, 0, PATIENCE, &view));
  OK(zb_client_reconnect(client, PATIENCE, NULL));
  OK(zb_client_call(client, BYTES("hello"), PATIENCE, &view));
  CHECK(equals(view.data, view.len, "HELLO"));
  zb_view_release(&view);
  zb_client_state state = {sizeof state, 0, 0, 0, 0};
  OK(zb_client_inspect(client, &state));
  CHECK(state.is_in_place == 0 && state.is_desynchronised == 0);
  zb_client_close(client);

  client = connected(immutable_channel, NULL);
  OK(zb_client_call(client, BYTES("abc"), PATIENCE, &view));
  CHECK(equals(view.data, view.len, "cba."));
  zb_view_release(&view);
  /* No answer: the channel is closed, since a gap would shift all later ones. */
  zb_status status = zb_client_call(client, BYTES("mute"), PATIENCE, &view);
  CHECK(status == ZB_PEER_CLOSED || status == ZB_PEER_DIED);
  CHECK(zb_last_error()->request_state == ZB_REQUEST_IN_DOUBT);
  zb_client_close(client);
  zb_server_close(edits);
  zb_server_close(replies);
  CHECK(counted.releases == 2);
}

/* Version 1: a reader and a writer. */
static void reader_and_writer(void) {
  const char *buffer_name = name("v1");
  zb_reader_config config;
  memset(&config, 0, sizeof config);
  config.size = sizeof config;
  config.metadata_size = 64;
  config.payload_size = 4096;
  zb_reader *reader;
  zb_writer *writer;
  zb_view frame;
  OK(zb_reader_create(buffer_name, &config, &reader));
  FAILS(ZB_ALREADY_RUNNING, zb_reader_create(buffer_name, &config, &(zb_reader *){NULL}));
  FAILS(ZB_NOT_CONNECTED_YET, zb_reader_read(reader, 0, &frame));
  OK(zb_writer_connect(buffer_name, NULL, PATIENCE, &writer));
  FAILS(ZB_BUSY, zb_writer_connect(buffer_name, NULL, 0, &(zb_writer *){NULL}));
  CHECK(zb_reader_is_writer_connected(reader) && zb_writer_is_reader_connected(writer));
  OK(zb_writer_set_metadata(writer, BYTES("text")));
  FAILS(ZB_METADATA_ALREADY_WRITTEN, zb_writer_set_metadata(writer, BYTES("text")));
  uint64_t sequence;
  OK(zb_writer_write(writer, BYTES("one"), &sequence));
  CHECK(sequence == 1);
  CHECK(zb_writer_next_sequence(writer) == 2 && zb_writer_next_sequence(NULL) == 0);
  zb_buffer buffer;
  OK(zb_writer_set_write_timeout(writer, 0));
  OK(zb_writer_acquire(writer, 3, &buffer));
  FAILS(ZB_CLAIM_OPEN, zb_writer_write(writer, BYTES("x"), NULL));
  FAILS(ZB_CLAIM_OPEN, zb_writer_set_write_timeout(writer, 0));
  CHECK(zb_writer_next_sequence(writer) == 0);
  memcpy(buffer.data, "two", 3);
  OK(zb_buffer_commit(&buffer, NULL));
  OK(zb_writer_acquire(writer, 3, &buffer));
  buffer.len = 2;
  FAILS(ZB_INVALID_STATE, zb_buffer_commit(&buffer, NULL));
  OK(zb_writer_acquire(writer, 3, &buffer));
  zb_buffer_abandon(&buffer);
  OK(zb_writer_acquire(writer, 3, &buffer));
  OK(zb_reader_read(reader, PATIENCE, &frame));
  CHECK(equals(frame.data, frame.len, "one") && frame.sequence == 1);
  zb_view_release(&frame);
  uint8_t metadata[4];
  size_t len;
  OK(zb_reader_metadata(reader, metadata, sizeof metadata, &len));
  CHECK(equals(metadata, len, "text"));
  zb_writer_close(writer);
  zb_buffer_abandon(&buffer); /* frees the writer */
  OK(zb_reader_read(reader, PATIENCE, &frame));
  zb_view last = frame;
  FAILS(ZB_PEER_CLOSED, zb_reader_read(reader, PATIENCE, &frame));
  zb_reader_close(reader);
  CHECK(equals(last.data, last.len, "two"));
  zb_view_release(&last);
}

/* Works until nobody gets the response. */
static int32_t until_cancelled(zb_frame *frame, void *pipe_end) {
  CHECK(write(*(int *)pipe_end, "b", 1) == 1);
  while (!zb_frame_is_cancelled(frame)) usleep(100);
  CHECK(write(*(int *)pipe_end, "e", 1) == 1);
  return 1;
}

static void released(void *pipe_end) { CHECK(write(*(int *)pipe_end, "r", 1) == 1); }

/* A handler hears that its request was cancelled, that its client has closed, and, once the time to stop is up,
   that its response is not delivered any more. */
static void handlers_that_ask(void) {
  int tell[2];
  CHECK(pipe(tell) == 0);
  for (uint32_t kind = ZB_SERVER_IN_PLACE; kind <= ZB_SERVER_IMMUTABLE; kind++) {
    const char *channel = name("ask");
    zb_server_config config = server_config(kind);
    if (kind == ZB_SERVER_IN_PLACE) config.stop_timeout_ns = 1000000;
    zb_server *server;
    OK(zb_server_create(channel, &config, &server));
    OK(zb_server_start(server, until_cancelled, &tell[1], released));
    zb_client *client = connected(channel, NULL);
    uint64_t sequence;
    if (kind == ZB_SERVER_IN_PLACE) {
      OK(zb_client_send(client, BYTES("cancel"), &sequence));
      next_is(tell[0], 'b');
      CHECK(zb_client_cancel(client, sequence));
      next_is(tell[0], 'e');
      OK(zb_client_send(client, BYTES("stop"), &sequence));
      next_is(tell[0], 'b');
      OK(zb_server_stop(server));
      next_is(tell[0], 'e');
      next_is(tell[0], 'r');
      zb_view view;
      FAILS(ZB_PEER_CLOSED, zb_client_receive(client, sequence, PATIENCE, &view));
      CHECK(zb_last_error()->request_state == ZB_REQUEST_IN_DOUBT);
      zb_client_close(client);
      zb_server_close(server);
      continue;
    }
    OK(zb_client_send(client, BYTES("close"), &sequence));
    next_is(tell[0], 'b');
    zb_client_close(client);
    next_is(tell[0], 'e');
    zb_server_close(server);
    next_is(tell[0], 'r');
  }
  close(tell[0]);
  close(tell[1]);
  /* A request in the hands of a thread that received it, detached or not. */
  const char *channel = name("ask-received");
  zb_server *server;
  OK(zb_server_create(channel, NULL, &server));
  zb_client *client = connected(channel, NULL);
  for (int detached = 0; detached <= 1; detached++) {
    uint64_t sequence;
    zb_frame frame;
    OK(zb_client_send(client, BYTES("x"), &sequence));
    OK(zb_server_receive(server, PATIENCE, &frame));
    if (detached) OK(zb_frame_detach(&frame));
    CHECK(!zb_frame_is_cancelled(&frame));
    CHECK(zb_client_cancel(client, sequence) && zb_frame_is_cancelled(&frame));
    OK(zb_frame_respond(&frame));
    CHECK(!zb_frame_is_cancelled(&frame));
  }
  CHECK(!zb_frame_is_cancelled(NULL));
  zb_client_close(client);
  zb_server_close(server);
}

static uint8_t kilobyte[1024];

static void call_and_release(zb_client *client, int detach) {
  for (int i = 0; i < 100; i++) {
    zb_view view;
    OK(zb_client_call(client, kilobyte, sizeof kilobyte, PATIENCE, &view));
    if (detach) OK(zb_view_detach(&view));
    zb_view_release(&view);
  }
  zb_client_close(client);
}

/* Whatever a view holds is released with it: more goes through each ring than there is room for. */
static void released_in_time(void) {
  const char *in_place_channel = name("back"), *mutable_channel = name("back-two");
  counters counted = {0, 0};
  zb_server *server = serve(in_place_channel, upper, &counted, server_config(ZB_SERVER_IN_PLACE));
  zb_server *edits = serve(mutable_channel, upper, &counted, server_config(ZB_SERVER_MUTABLE));
  for (int detach = 0; detach <= 1; detach++) call_and_release(connected(in_place_channel, NULL), detach);
  zb_client_config wanted = client_config(ZB_CHANNEL_IN_PLACE);
  wanted.threads = ZB_THREADS_MANY;
  call_and_release(connected(in_place_channel, &wanted), 0);
  wanted = client_config(ZB_CHANNEL_TWO_BUFFERS);
  wanted.response_payload_size = 1 << 14;
  call_and_release(connected(mutable_channel, &wanted), 0);
  zb_server_close(server);
  zb_server_close(edits);

  zb_reader_config config;
  memset(&config, 0, sizeof config);
  config.size = sizeof config;
  config.payload_size = 1 << 14;
  zb_reader *reader;
  zb_writer *writer;
  OK(zb_reader_create(name("back-frames"), &config, &reader));
  OK(zb_writer_connect(name("back-frames"), NULL, PATIENCE, &writer));
  for (int i = 0; i < 100; i++) {
    zb_view frame;
    OK(zb_writer_write(writer, kilobyte, sizeof kilobyte, NULL));
    OK(zb_reader_read(reader, PATIENCE, &frame));
    zb_view_release(&frame);
  }
  zb_writer_close(writer);
  zb_reader_close(reader);
}

/* Nothing that can be found out is taken on trust. */
static void misuse(void) {
  const char *channel = name("misuse");
  zb_client *client;
  zb_server *server;
  zb_view view;
  FAILS(ZB_NOT_RUNNING, zb_client_connect(channel, NULL, 0, &client));
  CHECK(client == NULL && strcmp(zb_last_error()->subject, channel) == 0);
  FAILS(ZB_BAD_NAME, zb_client_connect("no/slash", NULL, 0, &client));
  FAILS(ZB_BAD_NAME, zb_client_connect("\xff", NULL, 0, &client));
  FAILS(ZB_BAD_CONFIG, zb_client_connect(NULL, NULL, 0, &client));
  FAILS(ZB_BAD_CONFIG, zb_client_connect(channel, NULL, 0, NULL));
  FAILS(ZB_BAD_CONFIG, zb_server_create(channel, NULL, NULL));
  FAILS(ZB_BAD_CONFIG, zb_server_start(NULL, upper, NULL, NULL));
  FAILS(ZB_BAD_CONFIG, zb_client_call(NULL, NULL, 0, 0, &view));
  FAILS(ZB_BAD_CONFIG, zb_frame_respond(NULL));
  FAILS(ZB_BAD_CONFIG, zb_buffer_commit(NULL, NULL));
  FAILS(ZB_BAD_CONFIG, zb_view_detach(NULL));
  FAILS(ZB_INVALID_STATE, zb_view_detach(&(zb_view){0}));
  CHECK(!zb_client_cancel(NULL, 1) && !zb_server_is_running(NULL));
  zb_view_release(NULL);
  zb_buffer_abandon(NULL);
  zb_client_close(NULL);
  zb_server_close(NULL);
  zb_reader_close(NULL);
  zb_writer_close(NULL);

  zb_server_config config = server_config(7);
  FAILS(ZB_BAD_CONFIG, zb_server_create(channel, &config, &server));
  config = server_config(ZB_SERVER_IN_PLACE);
  config.size = 8;
  FAILS(ZB_BAD_CONFIG, zb_server_create(channel, &config, &server));
  /* A newer header's struct is fine as long as its new fields are zero. */
  struct {
    zb_server_config known;
    uint64_t unknown;
  } newer = {server_config(ZB_SERVER_IN_PLACE), 0};
  newer.known.size = sizeof newer;
  OK(zb_server_create(channel, &newer.known, &server));
  FAILS(ZB_ALREADY_RUNNING, zb_server_create(channel, NULL, &(zb_server *){NULL}));
  newer.unknown = 1;
  FAILS(ZB_BAD_CONFIG, zb_server_create(channel, &newer.known, &(zb_server *){NULL}));

  counters counted = {0, 0};
  FAILS(ZB_BAD_CONFIG, zb_server_start(server, NULL, NULL, NULL));
  FAILS(ZB_BAD_CONFIG, zb_server_start(server, NULL, &counted, count_release));
  CHECK(counted.releases == 1);
  OK(zb_server_start(server, upper, &counted, count_release));
  FAILS(ZB_INVALID_STATE, zb_server_start(server, upper, &counted, count_release));
  CHECK(counted.releases == 2);
  OK(zb_client_connect(channel, NULL, PATIENCE, &client));
  FAILS(ZB_BAD_CONFIG, zb_client_call(client, NULL, 5, PATIENCE, &view));
  FAILS(ZB_BAD_CONFIG, zb_client_call(client, NULL, 0, PATIENCE, NULL));
  zb_buffer buffer;
  FAILS(ZB_BAD_CONFIG, zb_client_acquire(client, 5, 0, 3, &buffer));
  FAILS(ZB_BUSY, zb_client_connect(channel, NULL, 0, &(zb_client *){NULL}));
  OK(zb_client_call(client, NULL, 0, PATIENCE, &view));
  CHECK(view.data != NULL && view.len == 0);
  zb_view_release(&view);
  zb_client_close(client);
  zb_server_close(server);
  CHECK(counted.releases == 3);
}

/* The server is killed in its handler; the client hears what is known, and reaches the next one. */
static void death(void) {
  const char *channel = name("death");
  int tell[2];
  char told;
  pid_t child = server_process(channel, hang, tell);
  zb_client_config wanted = client_config(ZB_CHANNEL_IN_PLACE);
  wanted.resend_not_started = 1;
  zb_client *client = connected(channel, &wanted);
  uint64_t taken, waiting;
  OK(zb_client_send(client, BYTES("taken"), &taken));
  CHECK(read(tell[0], &told, 1) == 1 && told == 'h');
  OK(zb_client_send(client, BYTES("waiting"), &waiting));
  end(child, tell);
  zb_view view;
  FAILS(ZB_PEER_DIED, zb_client_receive(client, taken, PATIENCE, &view));
  const zb_error *error = zb_last_error();
  CHECK(error->sequence == taken && error->request_state == ZB_REQUEST_IN_DOUBT);

  child = server_process(channel, upper, tell);
  zb_reconnected report;
  OK(zb_client_reconnect(client, PATIENCE, &report));
  CHECK(report.resent_count == 1 && report.resent[0].former == waiting && report.lost_count == 0);
  OK(zb_client_receive(client, report.resent[0].sequence, PATIENCE, &view));
  CHECK(equals(view.data, view.len, "WAITING"));
  zb_view_release(&view);
  zb_client_close(client);
  end(child, tell);
  /* What is left of the killed server goes with the next one. */
  zb_server *server;
  OK(zb_server_create(channel, NULL, &server));
  zb_server_close(server);
}

/* A forked child has nothing of its parent's handles. */
static void forked(void) {
  const char *channel = name("fork");
  counters counted = {0, 0};
  zb_server *server = serve(channel, upper, &counted, server_config(ZB_SERVER_IN_PLACE));
  zb_client *client = connected(channel, NULL);
  zb_view view;
  pid_t child = fork();
  CHECK(child >= 0);
  if (child == 0) {
    CHECK(zb_client_call(client, BYTES("x"), PATIENCE, &view) == ZB_WRONG_PROCESS);
    CHECK(zb_server_stop(server) == ZB_WRONG_PROCESS);
    zb_client_close(client);
    zb_server_close(server);
    /* Not by an exit: what belonged to the parent's threads would be taken for a leak. */
    execl("/bin/true", "true", (char *)NULL);
    _exit(2);
  }
  int status;
  CHECK(waitpid(child, &status, 0) == child && status == 0);
  OK(zb_client_call(client, BYTES("still"), PATIENCE, &view));
  CHECK(equals(view.data, view.len, "STILL"));
  zb_view_release(&view);
  zb_client_close(client);
  zb_server_close(server);
}

/* All of this on a thread that is to be cancelled: the first cancellation point that is met ends it. */
static void *with_a_pending_cancellation(void *reached_the_end) {
  CHECK(pthread_cancel(pthread_self()) == 0);
  zb_client *nobody;
  FAILS(ZB_NOT_RUNNING, zb_client_connect(name("nobody"), NULL, SECOND / 20, &nobody));
  in_place();
  views_and_lives();
  pulling();
  two_buffers();
  reader_and_writer();
  released_in_time();
  misuse();
  *(int *)reached_the_end = 1;
  pthread_testcancel();
  return NULL;
}

/* No function is a cancellation point: each does what it was asked, and the thread ends after it. */
static void cancelled(void) {
  pthread_t thread;
  void *result;
  int reached_the_end = 0;
  CHECK(pthread_create(&thread, NULL, with_a_pending_cancellation, &reached_the_end) == 0);
  CHECK(pthread_join(thread, &result) == 0);
  CHECK(result == PTHREAD_CANCELED && reached_the_end);
}

/* A handle that another thread waits in, without a deadline, and how that ended. */
typedef struct waiter {
  void *handle;
  zb_status (*wait)(void *handle);
  zb_status ended;
  pthread_t thread;
} waiter;

static zb_status wait_in_call(void *client) {
  zb_view view;
  return zb_client_call(client, BYTES("x"), -1, &view);
}

static zb_status wait_in_receive(void *client) {
  zb_view view;
  return zb_client_receive(client, 0, -1, &view);
}

static zb_status wait_in_reconnect(void *client) { return zb_client_reconnect(client, -1, NULL); }

static zb_status wait_in_server(void *server) {
  zb_frame frame;
  return zb_server_receive(server, -1, &frame);
}

static zb_status wait_in_reader(void *reader) {
  zb_view view;
  return zb_reader_read(reader, -1, &view);
}

static zb_status wait_in_writer(void *writer) {
  zb_status status;
  while ((status = zb_writer_write(writer, BYTES("0123456789"), NULL)) == ZB_OK) continue;
  return status;
}

static void *wait_in(void *argument) {
  waiter *waiter = argument;
  waiter->ended = waiter->wait(waiter->handle);
  return NULL;
}

static void begin(waiter *waiter, void *handle, zb_status (*wait)(void *handle)) {
  waiter->handle = handle;
  waiter->wait = wait;
  CHECK(pthread_create(&waiter->thread, NULL, wait_in, waiter) == 0);
  usleep(5000); /* most likely asleep by then, and just as well if not */
}

static void ended(waiter *waiter) {
  CHECK(pthread_join(waiter->thread, NULL) == 0 && waiter->ended == ZB_CLOSED);
}

/* A shutdown ends the waits of other threads in the same handle; close frees it afterwards. */
static void shut_down(void) {
  zb_client_shutdown(NULL);
  zb_server_shutdown(NULL);
  zb_reader_shutdown(NULL);
  zb_writer_shutdown(NULL);
  const char *channel = name("shutdown");
  waiter waiters[2];
  zb_server *server;
  zb_view view;
  for (uint32_t threads = ZB_THREADS_ONE; threads <= ZB_THREADS_MANY; threads++) {
    zb_status (*waits[])(void *) = {wait_in_call, wait_in_receive, wait_in_reconnect};
    for (int i = 0; i < 3; i++) {
      OK(zb_server_create(channel, NULL, &server));
      zb_client_config wanted = client_config(ZB_CHANNEL_IN_PLACE);
      wanted.threads = threads;
      zb_client *client = connected(channel, &wanted);
      if (waits[i] == wait_in_reconnect) zb_server_close(server);
      begin(&waiters[0], client, waits[i]);
      if (threads == ZB_THREADS_MANY) begin(&waiters[1], client, waits[i]);
      zb_client_shutdown(client);
      ended(&waiters[0]);
      if (threads == ZB_THREADS_MANY) ended(&waiters[1]);
      FAILS(ZB_CLOSED, zb_client_call(client, BYTES("x"), -1, &view));
      FAILS(ZB_CLOSED, zb_client_reconnect(client, -1, NULL));
      zb_client_shutdown(client);
      zb_client_close(client);
      if (waits[i] != wait_in_reconnect) zb_server_close(server);
    }
  }
  OK(zb_server_create(channel, NULL, &server));
  begin(&waiters[0], server, wait_in_server);
  zb_server_shutdown(server);
  ended(&waiters[0]);
  FAILS(ZB_CLOSED, zb_server_receive(server, -1, &(zb_frame){0}));
  zb_server_close(server);

  zb_reader *reader;
  zb_writer *writer;
  zb_reader_config sizes = {.size = sizeof sizes, .payload_size = 256};
  zb_writer_config patient = {.size = sizeof patient, .write_timeout_ns = -1};
  OK(zb_reader_create(channel, &sizes, &reader));
  OK(zb_writer_connect(channel, &patient, PATIENCE, &writer));
  begin(&waiters[0], writer, wait_in_writer);
  zb_writer_shutdown(writer);
  ended(&waiters[0]);
  FAILS(ZB_CLOSED, zb_writer_write(writer, BYTES("x"), NULL));
  zb_writer_close(writer);
  zb_reader_close(reader);
  OK(zb_reader_create(channel, &sizes, &reader));
  begin(&waiters[0], reader, wait_in_reader);
  begin(&waiters[1], reader, wait_in_reader);
  zb_reader_shutdown(reader);
  ended(&waiters[0]);
  ended(&waiters[1]);
  FAILS(ZB_CLOSED, zb_reader_read(reader, -1, &view));
  zb_reader_close(reader);
}

int main(void) {
  CHECK(zb_abi_version() == ZB_ABI_VERSION);
  zb_include_in_core_dumps(false);
  CHECK(zb_last_error()->status == ZB_OK && zb_last_error()->size >= sizeof(zb_error));
  in_place();
  views_and_lives();
  pulling();
  threads();
  two_buffers();
  reader_and_writer();
  handlers_that_ask();
  released_in_time();
  shut_down();
  misuse();
  cancelled();
  death();
  forked();
  puts("the C interface holds");
  return 0;
}
