/*
 * Calls that no thread waits for, as C sees them: each is told of exactly once, whatever happens to it. Run
 * plainly, under AddressSanitizer and under valgrind: `cargo xtask native`.
 */

#include "support.h"

#include <semaphore.h>

enum { MANY = 1000 };

/* A call and how it ended. */
typedef struct call {
  int told;
  zb_status status, last;
  int32_t request_state;
  uint64_t number;
  zb_view view;
  uint64_t order;
  bool here; /* on the thread that had started it */
  pthread_t starter;
} call;

static call calls[MANY];
static sem_t done_calls;
static uint64_t order;

static void clear(void) {
  memset(calls, 0, sizeof calls);
  for (int i = 0; i < MANY; i++) calls[i].starter = pthread_self();
  order = 0;
  CHECK(sem_init(&done_calls, 0, 0) == 0);
}

/* Keeps the response. */
static void keep(zb_status status, zb_view *view, void *context) {
  call *this = context;
  this->status = status;
  this->view = *view; /* moved: it is this function's to release */
  this->here = pthread_equal(this->starter, pthread_self()) != 0;
  if (status != ZB_OK) {
    CHECK(view->data == NULL);
    this->last = zb_last_error()->status;
    this->request_state = zb_last_error()->request_state;
    CHECK(zb_last_error()->message_len > 0);
  }
  this->order = __atomic_add_fetch(&order, 1, __ATOMIC_RELAXED);
  CHECK(__atomic_add_fetch(&this->told, 1, __ATOMIC_RELEASE) == 1);
  sem_post(&done_calls);
}

static void await_done(int count) {
  struct timespec until;
  CHECK(clock_gettime(CLOCK_REALTIME, &until) == 0);
  until.tv_sec += PATIENCE / SECOND;
  for (int i = 0; i < count; i++) CHECK(sem_timedwait(&done_calls, &until) == 0);
}

static void none_is_told_again(int count) {
  for (int i = 0; i < count; i++) CHECK(__atomic_load_n(&calls[i].told, __ATOMIC_ACQUIRE) == 1);
  CHECK(sem_trywait(&done_calls) != 0);
  CHECK(sem_destroy(&done_calls) == 0);
}

static zb_client *shared_client(const char *channel) {
  zb_client_config wanted = client_config(ZB_CHANNEL_ANY);
  wanted.threads = ZB_THREADS_MANY;
  return connected(channel, &wanted);
}

/* Whether a message is that of a call: two bytes that are no letters, and two that are. */
static bool is_of(const uint8_t *data, size_t len, int index, const char *letters) {
  return len == 4 && data[0] == (0x80 | (index & 63)) && data[1] == (0x80 | (index >> 6)) &&
         memcmp(data + 2, letters, 2) == 0;
}

static void start(zb_client *client, int index, int64_t timeout) {
  uint8_t data[4] = {(uint8_t)(0x80 | (index & 63)), (uint8_t)(0x80 | (index >> 6)), 'x', 'y'};
  call *this = &calls[index];
  OK(zb_client_call_async(client, data, sizeof data, timeout, keep, this, &this->number));
}

static void check_response(int index) {
  call *this = &calls[index];
  CHECK(this->status == ZB_OK && !this->here);
  CHECK(is_of(this->view.data, this->view.len, index, "XY"));
  zb_view_release(&this->view);
}

static void write_hello(uint8_t *data, size_t len, void *context) {
  CHECK(len == 5 && context == &calls[1]);
  memcpy(data, "hello", 5);
}

/* Copied and filled in place; a response stays when its client is closed. */
static void one_by_one(void) {
  clear();
  const char *channel = name("one");
  counters counted = {0, 0};
  zb_server *server = serve(channel, upper, &counted, server_config(ZB_SERVER_IN_PLACE));
  zb_client *client = shared_client(channel);
  start(client, 0, PATIENCE);
  await_done(1);
  OK(zb_client_call_async_with(client, 5, 64, 16, write_hello, PATIENCE, keep, &calls[1], NULL));
  await_done(1);
  zb_client_close(client);
  CHECK(calls[1].status == ZB_OK && equals(calls[1].view.data, calls[1].view.len, "HELLO"));
  zb_view_release(&calls[1].view);
  check_response(0);
  zb_server_close(server);
  none_is_told_again(2);
}

/* A response that comes at once is there when the call returns, and every other one is told of; each comes once. */
static void at_once(void) {
  const char *channel = name("at-once");
  counters counted = {0, 0};
  zb_server *server = serve(channel, upper, &counted, server_config(ZB_SERVER_IN_PLACE));
  zb_client *client = shared_client(channel);
  int found = 0, tries = 0;
  for (; found < 10; tries++) {
    CHECK(tries < 1000000);
    clear();
    zb_view view;
    OK(zb_client_try_call_async(client, (const uint8_t *)"hello", 5, PATIENCE, keep, &calls[0], NULL, &view));
    if (view.data == NULL) {
      await_done(1);
      view = calls[0].view;
    } else {
      CHECK(calls[0].told == 0);
      found++;
    }
    CHECK(equals(view.data, view.len, "HELLO"));
    zb_view_release(&view);
    CHECK(sem_trywait(&done_calls) != 0 && sem_destroy(&done_calls) == 0);
  }
  zb_client_close(client);
  zb_view view;
  CHECK(zb_client_try_call_async(NULL, NULL, 0, PATIENCE, keep, NULL, NULL, &view) == ZB_BAD_CONFIG && view.data == NULL);
  zb_server_close(server);
}

/* A thousand under way at once, and answered in another order. */
static void thousand(void) {
  clear();
  const char *channel = name("thousand");
  zb_server_config config = server_config(ZB_SERVER_IN_PLACE);
  config.payload_size = 1 << 18;
  zb_server *server;
  OK(zb_server_create(channel, &config, &server));
  zb_client *client = shared_client(channel);
  for (int i = 0; i < MANY; i++) start(client, i, PATIENCE);
  static zb_frame frames[MANY];
  for (int i = 0; i < MANY; i++) {
    OK(zb_server_receive(server, PATIENCE, &frames[i]));
    OK(zb_frame_detach(&frames[i]));
  }
  for (int i = MANY - 1; i >= 0; i--) {
    CHECK(calls[i].told == 0 || i < MANY - 1);
    memcpy(frames[i].data + 2, "XY", 2);
    OK(zb_frame_respond(&frames[i]));
  }
  await_done(MANY);
  for (int i = 0; i < MANY; i++) check_response(i);
  zb_client_close(client);
  zb_server_close(server);
  none_is_told_again(MANY);
}

/* The ring has room for few; who starts the calls is the one who serves them, and so was never blocked. */
static void more_than_fit(void) {
  clear();
  const char *channel = name("full");
  zb_server_config config = server_config(ZB_SERVER_IN_PLACE);
  config.payload_size = 1 << 12;
  zb_server *server;
  OK(zb_server_create(channel, &config, &server));
  zb_client *client = shared_client(channel);
  for (int i = 0; i < MANY; i++) start(client, i, PATIENCE);
  for (int i = 0; i < MANY; i++) {
    zb_frame frame;
    OK(zb_server_receive(server, PATIENCE, &frame));
    CHECK(is_of(frame.data, frame.len, i, "xy"));
    memcpy(frame.data + 2, "XY", 2);
    OK(zb_frame_respond(&frame));
    await_done(1);
    check_response(i);
    CHECK(calls[i].order == (uint64_t)i + 1);
  }
  zb_client_close(client);
  zb_server_close(server);
  none_is_told_again(MANY);
}

/* Nobody answers: one call times out while it waits for its response, one while it waits for room. */
static void too_late(void) {
  clear();
  const char *channel = name("late");
  zb_server_config config = server_config(ZB_SERVER_IN_PLACE);
  config.payload_size = 1 << 12;
  zb_server *server;
  OK(zb_server_create(channel, &config, &server));
  zb_client *client = shared_client(channel);
  static uint8_t big[2048];
  OK(zb_client_call_async(client, big, sizeof big, SECOND / 50, keep, &calls[0], NULL));
  OK(zb_client_call_async(client, big, sizeof big, SECOND / 100, keep, &calls[1], NULL));
  await_done(2);
  CHECK(calls[0].status == ZB_TIMEOUT && calls[0].last == ZB_TIMEOUT);
  CHECK(calls[1].status == ZB_FULL || calls[1].status == ZB_TIMEOUT);
  zb_client_close(client);
  zb_server_close(server);
  none_is_told_again(2);
}

/* Sent ones and ones that wait for room. */
static void cancelled(void) {
  clear();
  const char *channel = name("cancel");
  zb_server_config config = server_config(ZB_SERVER_IN_PLACE);
  config.payload_size = 1 << 12;
  zb_server *server;
  OK(zb_server_create(channel, &config, &server));
  zb_client *client = shared_client(channel);
  for (int i = 0; i < MANY; i++) start(client, i, PATIENCE);
  for (int i = 0; i < MANY; i += 2) CHECK(zb_client_cancel_call(client, calls[i].number));
  await_done(MANY / 2);
  for (int i = 0; i < MANY; i += 2) {
    CHECK(calls[i].status == ZB_CANCELLED && calls[i].last == ZB_CANCELLED);
    CHECK(!zb_client_cancel_call(client, calls[i].number));
  }
  for (int i = 1; i < MANY; i += 2) CHECK(calls[i].told == 0);
  for (int i = 1; i < MANY;) {
    zb_frame frame;
    OK(zb_server_receive(server, PATIENCE, &frame));
    bool wanted = is_of(frame.data, frame.len, i, "xy");
    memcpy(frame.data + 2, "XY", 2);
    OK(zb_frame_respond(&frame));
    if (!wanted) continue; /* one that was being sent when it was cancelled */
    await_done(1);
    check_response(i);
    CHECK(!zb_client_cancel_call(client, calls[i].number));
    i += 2;
  }
  CHECK(!zb_client_cancel_call(client, 1 << 30) && !zb_client_cancel_call(NULL, 1));
  zb_client_close(client);
  zb_server_close(server);
  none_is_told_again(MANY);
}

/* The server is killed in its handler: one request is in doubt, all others were not started. */
static void killed(void) {
  clear();
  const char *channel = name("kill");
  int tell[2];
  pid_t child = server_process(channel, hang, tell);
  zb_client *client = shared_client(channel);
  for (int i = 0; i < MANY; i++) start(client, i, PATIENCE);
  next_is(tell[0], 'h');
  end(child, tell);
  await_done(MANY);
  for (int i = 0; i < MANY; i++) {
    CHECK(calls[i].status == ZB_PEER_DIED && calls[i].last == ZB_PEER_DIED && !calls[i].here);
    CHECK(calls[i].request_state == (i == 0 ? ZB_REQUEST_IN_DOUBT : ZB_REQUEST_NOT_STARTED) ||
          (i > 0 && calls[i].request_state == ZB_REQUEST_NONE));
  }
  none_is_told_again(MANY);
  /* The next server is reached as by any other client. */
  clear();
  child = server_process(channel, upper, tell);
  OK(zb_client_reconnect(client, PATIENCE, NULL));
  start(client, 0, PATIENCE);
  await_done(1);
  check_response(0);
  zb_client_close(client);
  end(child, tell);
  none_is_told_again(1);
  zb_server *server;
  OK(zb_server_create(channel, NULL, &server));
  zb_server_close(server);
}

static void *shut_down(void *client) {
  zb_client_shutdown(client);
  return NULL;
}

/* All calls end when the client is shut down by another thread, or closed; and none can be started. */
static void ended(void) {
  for (int by_close = 0; by_close <= 1; by_close++) {
    clear();
    const char *channel = name("end");
    zb_server *server;
    zb_server_config config = server_config(ZB_SERVER_IN_PLACE);
    config.payload_size = 1 << 12;
    OK(zb_server_create(channel, &config, &server));
    zb_client *client = shared_client(channel);
    for (int i = 0; i < MANY; i++) start(client, i, ZB_FOREVER);
    if (by_close) {
      zb_client_close(client);
      for (int i = 0; i < MANY; i++) CHECK(calls[i].told == 1);
      await_done(MANY);
    } else {
      pthread_t thread;
      CHECK(pthread_create(&thread, NULL, shut_down, client) == 0);
      await_done(MANY);
      CHECK(pthread_join(thread, NULL) == 0);
      call refused = {0};
      FAILS(ZB_CLOSED, zb_client_call_async(client, NULL, 0, PATIENCE, keep, &refused, NULL));
      CHECK(refused.told == 0);
      zb_client_close(client);
    }
    for (int i = 0; i < MANY; i++) CHECK(calls[i].status == ZB_CLOSED && calls[i].last == ZB_CLOSED);
    zb_server_close(server);
    none_is_told_again(MANY);
  }
}

static zb_client *chained;

/* Starts the next call, and closes the client after the last one. */
static void chain(zb_status status, zb_view *view, void *context) {
  call *this = context;
  CHECK(status == ZB_OK && __atomic_add_fetch(&this->told, 1, __ATOMIC_RELEASE) == 1);
  zb_view_release(view);
  if (this + 1 < calls + 100) {
    OK(zb_client_call_async(chained, BYTES("next"), PATIENCE, chain, this + 1, NULL));
  } else {
    zb_client_close(chained);
  }
  sem_post(&done_calls);
}

static void from_a_callback(void) {
  clear();
  const char *channel = name("chain");
  counters counted = {0, 0};
  zb_server *server = serve(channel, upper, &counted, server_config(ZB_SERVER_IN_PLACE));
  chained = shared_client(channel);
  OK(zb_client_call_async(chained, BYTES("first"), PATIENCE, chain, &calls[0], NULL));
  await_done(100);
  zb_server_close(server);
  none_is_told_again(100);
}

static void *call_many(void *client) {
  static int next;
  for (int i; (i = __atomic_fetch_add(&next, 1, __ATOMIC_RELAXED)) < MANY;) start(client, i, PATIENCE);
  return NULL;
}

/* Several threads start them, and others block in theirs meanwhile. */
static void by_many_threads(void) {
  clear();
  const char *channel = name("threads");
  counters counted = {0, 0};
  zb_server_config config = server_config(ZB_SERVER_IN_PLACE);
  config.workers = 2;
  config.payload_size = 1 << 18; /* for all of the responses, which are kept for a while */
  zb_server *server = serve(channel, upper, &counted, config);
  zb_client *client = shared_client(channel);
  pthread_t threads[3];
  for (int i = 0; i < 3; i++) CHECK(pthread_create(&threads[i], NULL, call_many, client) == 0);
  for (int i = 0; i < 50; i++) {
    zb_view view;
    OK(zb_client_call(client, BYTES("blocking"), PATIENCE, &view));
    CHECK(equals(view.data, view.len, "BLOCKING"));
    zb_view_release(&view);
  }
  for (int i = 0; i < 3; i++) CHECK(pthread_join(threads[i], NULL) == 0);
  for (int done = 0; done < MANY;) {
    await_done(1);
    done++;
    for (int i = 0; i < MANY; i++)
      if (__atomic_load_n(&calls[i].told, __ATOMIC_ACQUIRE) && calls[i].view.data != NULL) check_response(i);
  }
  zb_client_close(client);
  zb_server_close(server);
  none_is_told_again(MANY);
}

/* What fails at once is not told of. */
static void refused(void) {
  clear();
  const char *channel = name("refused");
  counters counted = {0, 0};
  zb_server *server = serve(channel, upper, &counted, server_config(ZB_SERVER_IN_PLACE));
  zb_client *client = connected(channel, NULL);
  call *never = &calls[0];
  FAILS(ZB_UNSUPPORTED, zb_client_call_async(client, BYTES("x"), PATIENCE, keep, never, NULL));
  CHECK(!zb_client_cancel_call(client, 1));
  zb_client_close(client);
  client = shared_client(channel);
  FAILS(ZB_BAD_CONFIG, zb_client_call_async(NULL, BYTES("x"), PATIENCE, keep, never, NULL));
  FAILS(ZB_BAD_CONFIG, zb_client_call_async(client, NULL, 1, PATIENCE, keep, never, NULL));
  FAILS(ZB_BAD_CONFIG, zb_client_call_async(client, BYTES("x"), PATIENCE, NULL, never, NULL));
  FAILS(ZB_BAD_CONFIG, zb_client_call_async_with(client, 1, 0, 0, NULL, PATIENCE, keep, never, NULL));
  FAILS(ZB_BAD_CONFIG, zb_client_call_async_with(client, 1, 0, 3, write_hello, PATIENCE, keep, never, NULL));
  static uint8_t big[1 << 17];
  FAILS(ZB_TOO_LARGE, zb_client_call_async(client, big, sizeof big, PATIENCE, keep, never, NULL));
  zb_server *edits = serve(name("refused-two"), upper, &counted, server_config(ZB_SERVER_MUTABLE));
  zb_client *of_two = shared_client(name("refused-two"));
  FAILS(ZB_UNSUPPORTED, zb_client_call_async(of_two, BYTES("x"), PATIENCE, keep, never, NULL));
  zb_client_close(of_two);
  zb_server_close(edits);
  pid_t child = fork();
  CHECK(child >= 0);
  if (child == 0) {
    CHECK(zb_client_call_async(client, BYTES("x"), PATIENCE, keep, never, NULL) == ZB_WRONG_PROCESS);
    CHECK(!zb_client_cancel_call(client, 1));
    execl("/bin/true", "true", (char *)NULL);
    _exit(2);
  }
  int status;
  CHECK(waitpid(child, &status, 0) == child && status == 0);
  zb_client_close(client);
  zb_server_close(server);
  CHECK(never->told == 0);
  none_is_told_again(0);
}

int main(void) {
  one_by_one();
  at_once();
  thousand();
  more_than_fit();
  too_late();
  cancelled();
  killed();
  ended();
  from_a_callback();
  by_many_threads();
  refused();
  puts("calls that no thread waits for hold");
  return 0;
}
