/*
 * Services as C sees them: many clients of one server, and several servers of one name. Run plainly, under
 * AddressSanitizer and under valgrind: `cargo xtask native`.
 */

#include "support.h"

#include <semaphore.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>

/* The runtime directory of this program's services. */
static char directory[] = "/tmp/zerobuffer-c-XXXXXX";

static zb_service_config service_config(void) {
  zb_service_config config;
  memset(&config, 0, sizeof config);
  config.size = sizeof config;
  config.ring_size = 1 << 16;
  config.directory = directory;
  return config;
}

static zb_client_config client_of_service(void) {
  zb_client_config config = client_config(ZB_CHANNEL_SERVICE);
  config.directory = directory;
  return config;
}

static zb_server *create(const char *service, zb_service_config config) {
  zb_server *server;
  OK(zb_service_create(service, &config, &server));
  return server;
}

/* Ends a server, the last of its service, and removes the empty directory that it leaves. */
static void close_last(zb_server *server, const char *service) {
  char path[128];
  zb_server_close(server);
  snprintf(path, sizeof path, "%s/%s", directory, service);
  CHECK(rmdir(path) == 0);
}

static zb_client_identity identity(zb_frame *frame) {
  zb_client_identity found;
  memset(&found, 0xee, sizeof found);
  found.size = sizeof found;
  OK(zb_frame_client(frame, &found));
  return found;
}

static bool is_this_process(zb_client_identity client, uint64_t number, const char *label) {
  return client.number == number && equals(client.label, client.label_len, label) &&
         client.pid == (uint32_t)getpid() && client.uid == geteuid() && client.gid == getegid();
}

/* Responds with the label of the client that asks. */
static int32_t who(zb_frame *frame, void *user) {
  zb_client_identity client = identity(frame);
  __atomic_add_fetch(&((counters *)user)->calls, 1, __ATOMIC_RELAXED);
  CHECK(zb_frame_resize(frame, client.label_len) == ZB_OK);
  memcpy(frame->data, client.label, client.label_len);
  return 0;
}

static void waits_until(zb_server *server, size_t clients) {
  for (int i = 0; i < 30000 && zb_server_clients(server) != clients; i++) usleep(1000);
  CHECK(zb_server_clients(server) == clients);
}

/* A handler, for several clients at once, each with what it asked for. */
static void many_clients(void) {
  enum { CLIENTS = 5 };
  const char *service = name("many");
  counters counted = {0, 0};
  zb_service_config config = service_config();
  config.workers = 2;
  config.metadata = (const uint8_t *)"the server";
  config.metadata_len = 10;
  config.max_ring_size = 1 << 18;
  config.max_clients = CLIENTS;
  config.wait = ZB_WAIT_PARK;
  zb_server *server = create(service, config);
  CHECK(!zb_server_is_running(server) && !zb_server_is_client_connected(server));
  OK(zb_server_start(server, who, &counted, count_release));
  CHECK(zb_server_is_running(server));

  zb_client *clients[CLIENTS];
  zb_view view;
  for (int i = 0; i < CLIENTS; i++) {
    char label[] = "camera 0";
    label[7] += (char)i;
    zb_client_config wanted = client_of_service();
    wanted.label = label;
    wanted.ring_size = i == 0 ? 1 << 17 : 0;
    wanted.threads = i % 2 ? ZB_THREADS_MANY : ZB_THREADS_ONE;
    clients[i] = connected(service, &wanted);
    zb_client_state state = {.size = sizeof state};
    OK(zb_client_inspect(clients[i], &state));
    CHECK(state.is_in_place == 1 && state.max_request_size == (size_t)(i == 0 ? 1 << 17 : 1 << 16) - 64);
  }
  CHECK(zb_server_clients(server) == CLIENTS && zb_server_is_client_connected(server));
  zb_client_config wanted = client_of_service();
  FAILS(ZB_BUSY, zb_client_connect(service, &wanted, 0, &(zb_client *){NULL}));
  for (int i = CLIENTS; i-- > 0;) {
    char expected[] = "camera 0";
    expected[7] += (char)i;
    OK(zb_client_call(clients[i], BYTES("who am I?"), PATIENCE, &view));
    CHECK(equals(view.data, view.len, expected));
    zb_view_release(&view);
  }
  uint8_t metadata[16];
  size_t len;
  OK(zb_client_server_metadata(clients[0], metadata, sizeof metadata, &len));
  CHECK(equals(metadata, len, "the server"));
  zb_client_close(clients[0]);
  waits_until(server, CLIENTS - 1);
  wanted.ring_size = 1 << 19;
  FAILS(ZB_TOO_LARGE, zb_client_connect(service, &wanted, 0, &clients[0]));
  CHECK(zb_last_error()->allowed == 1 << 18);

  OK(zb_server_stop(server));
  CHECK(!zb_server_is_running(server) && zb_server_clients(server) == 0);
  CHECK(counted.calls == CLIENTS && counted.releases == 1);
  FAILS(ZB_PEER_CLOSED, zb_client_call(clients[1], BYTES("x"), PATIENCE, &view));
  for (int i = 1; i < CLIENTS; i++) zb_client_close(clients[i]);
  close_last(server, service);
}

/* Requests of several clients taken without a handler, and answered in another order. */
static void pulling(void) {
  const char *service = name("pull");
  zb_server *server = create(service, service_config());
  zb_client *clients[2];
  zb_frame frames[2];
  zb_view view;
  uint64_t sequences[2];
  const char *labels[] = {"first", "second"};
  for (int i = 0; i < 2; i++) {
    zb_client_config wanted = client_of_service();
    wanted.label = labels[i];
    wanted.metadata = (const uint8_t *)labels[i];
    wanted.metadata_len = strlen(labels[i]);
    clients[i] = connected(service, &wanted);
    OK(zb_client_send(clients[i], BYTES("ping"), &sequences[i]));
    OK(zb_server_receive(server, PATIENCE, &frames[i]));
    CHECK(is_this_process(identity(&frames[i]), (uint64_t)i + 1, labels[i]));
    const uint8_t *metadata;
    size_t len;
    OK(zb_frame_metadata(&frames[i], &metadata, &len));
    CHECK(equals(metadata, len, labels[i]) && !zb_frame_is_cancelled(&frames[i]));
    OK(zb_frame_detach(&frames[i]));
  }
  for (int i = 2; i-- > 0;) {
    CHECK(is_this_process(identity(&frames[i]), (uint64_t)i + 1, labels[i]));
    frames[i].data[1] = 'o';
    OK(zb_frame_respond(&frames[i]));
    FAILS(ZB_INVALID_STATE, zb_frame_client(&frames[i], &(zb_client_identity){.size = sizeof(zb_client_identity)}));
    OK(zb_client_receive(clients[i], sequences[i], PATIENCE, &view));
    CHECK(equals(view.data, view.len, "pong"));
    zb_view_release(&view);
  }
  FAILS(ZB_TIMEOUT, zb_server_receive(server, 0, &frames[0]));

  /* Who dies meanwhile, here by closing, does not want its response. */
  OK(zb_client_send(clients[0], BYTES("ping"), &sequences[0]));
  OK(zb_server_receive(server, PATIENCE, &frames[0]));
  FAILS(ZB_INVALID_STATE, zb_server_receive(server, 0, &frames[1]));
  zb_client_close(clients[0]);
  CHECK(zb_frame_is_cancelled(&frames[0]));
  OK(zb_frame_fail(&frames[0], "no", 2));
  /* One that is in the caller's hands when its server ends stays mapped. */
  OK(zb_client_send(clients[1], BYTES("ping"), &sequences[1]));
  OK(zb_server_receive(server, PATIENCE, &frames[0]));
  close_last(server, service);
  memcpy(frames[0].data, "mine", 4);
  FAILS(ZB_INVALID_STATE, zb_frame_respond(&frames[0])); /* frees the server */
  FAILS(ZB_HANDLER_FAILED, zb_client_receive(clients[1], sequences[1], PATIENCE, &view));
  CHECK(zb_last_error()->handler_status == 3);
  zb_client_close(clients[1]);
}

static void *receive_for_ever(void *server) {
  zb_frame frame;
  return (void *)(intptr_t)zb_server_receive(server, ZB_FOREVER, &frame);
}

static void shut_down(void) {
  const char *service = name("shutdown");
  zb_server *server = create(service, service_config());
  pthread_t thread;
  void *status;
  CHECK(pthread_create(&thread, NULL, receive_for_ever, server) == 0);
  usleep(5000); /* most likely asleep by then, and just as well if not */
  CHECK(zb_server_clients(server) == 0);
  zb_server_shutdown(server);
  CHECK(pthread_join(thread, &status) == 0 && (intptr_t)status == ZB_CLOSED);
  FAILS(ZB_CLOSED, zb_server_receive(server, ZB_FOREVER, &(zb_frame){0}));
  close_last(server, service);
}

/* A handler that stops its own server, and what it uses. */
typedef struct stopper {
  zb_server *server;
  int releases;
} stopper;

static int32_t stop_itself(zb_frame *frame, void *user) {
  (void)frame;
  CHECK(zb_server_stop(((stopper *)user)->server) == ZB_OK);
  return 0;
}

static void count_stopper(void *user) {
  __atomic_add_fetch(&((stopper *)user)->releases, 1, __ATOMIC_RELEASE);
}

/* It does not wait for that very handler. */
static void stopped_by_its_handler(void) {
  const char *service = name("stopping");
  zb_service_config config = service_config();
  config.stop_timeout_ns = 1000 * PATIENCE;
  stopper user = {create(service, config), 0};
  OK(zb_server_start(user.server, stop_itself, &user, count_stopper));
  zb_client_config wanted = client_of_service();
  zb_client *client = connected(service, &wanted);
  zb_view view;
  FAILS(ZB_PEER_CLOSED, zb_client_call(client, BYTES("stop"), PATIENCE, &view));
  zb_client_close(client);
  for (int i = 0; i < 30000 && __atomic_load_n(&user.releases, __ATOMIC_ACQUIRE) == 0; i++) usleep(1000);
  CHECK(user.releases == 1);
  close_last(user.server, service);
}

/* Two servers of one service: when one stops, its client goes on with the other. */
static void two_servers(void) {
  const char *service = name("two");
  counters counted[2] = {{0, 0}, {0, 0}};
  zb_server *servers[2];
  for (int i = 0; i < 2; i++) {
    servers[i] = create(service, service_config());
    OK(zb_server_start(servers[i], upper, &counted[i], count_release));
  }
  zb_client_config wanted = client_of_service();
  wanted.resend_not_started = 1;
  zb_client *client = connected(service, &wanted);
  int first = zb_server_clients(servers[0]) == 1 ? 0 : 1;
  CHECK(zb_server_clients(servers[1 - first]) == 0);
  zb_view view;
  OK(zb_client_call(client, BYTES("a"), PATIENCE, &view));
  zb_view_release(&view);
  zb_server_close(servers[first]);
  OK(zb_client_call(client, BYTES("b"), PATIENCE, &view));
  CHECK(equals(view.data, view.len, "B") && counted[1 - first].calls == 1);
  zb_view_release(&view);
  zb_client_close(client);
  close_last(servers[1 - first], service);
}

/* How many callbacks have begun, and have found that another one had before they returned. */
typedef struct meeting {
  int inside, met;
  sem_t ended;
} meeting;

/* Waits inside of the callback until another one has entered. */
static void meet(zb_status status, zb_view *view, void *context) {
  meeting *all = context;
  CHECK(status == ZB_OK);
  zb_view_release(view);
  __atomic_add_fetch(&all->inside, 1, __ATOMIC_ACQ_REL);
  for (int i = 0; i < 30000 && __atomic_load_n(&all->inside, __ATOMIC_ACQUIRE) < 2; i++) usleep(1000);
  if (__atomic_load_n(&all->inside, __ATOMIC_ACQUIRE) >= 2) __atomic_add_fetch(&all->met, 1, __ATOMIC_ACQ_REL);
  sem_post(&all->ended);
}

/* The callbacks of a client that mends itself run at the same time, one for each connection. */
static void callbacks_at_the_same_time(void) {
  const char *service = name("callbacks");
  counters counted[2] = {{0, 0}, {0, 0}};
  zb_server *servers[2];
  for (int i = 0; i < 2; i++) {
    servers[i] = create(service, service_config());
    OK(zb_server_start(servers[i], upper, &counted[i], count_release));
  }
  zb_client_config wanted = client_of_service();
  wanted.connections = 2;
  zb_client *client = connected(service, &wanted);
  /* A connection that did not come at once comes with a call. */
  for (int i = 0; i < 30000 && zb_server_clients(servers[0]) + zb_server_clients(servers[1]) < 2; i++) {
    zb_view view;
    OK(zb_client_call(client, BYTES("one"), PATIENCE, &view));
    zb_view_release(&view);
    usleep(1000);
  }
  meeting all = {.inside = 0, .met = 0};
  CHECK(sem_init(&all.ended, 0, 0) == 0);
  /* Two may be on one connection, if the callback of the first one runs already; a third one is on the other. */
  enum { CALLS = 3 };
  for (int i = 0; i < CALLS; i++) OK(zb_client_call_async(client, BYTES("meet"), PATIENCE, meet, &all, NULL));
  for (int i = 0; i < CALLS; i++) CHECK(sem_wait(&all.ended) == 0);
  CHECK(all.met == CALLS);
  zb_client_close(client);
  CHECK(sem_destroy(&all.ended) == 0);
  zb_server_close(servers[0]);
  close_last(servers[1], service);
}

/* A socket that the process was given, as by systemd: the server leaves it alone. */
static void given_listener(void) {
  const char *service = name("given");
  struct sockaddr_un address = {.sun_family = AF_UNIX};
  char folder[64];
  snprintf(folder, sizeof folder, "%s/%s", directory, service);
  CHECK(mkdir(folder, 0700) == 0);
  snprintf(address.sun_path, sizeof address.sun_path, "%s/given.sock", folder);
  int listener = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0);
  CHECK(bind(listener, (struct sockaddr *)&address, sizeof address) == 0 && listen(listener, 8) == 0);
  zb_service_config config = service_config();
  config.has_listener = 1;
  config.listener = listener;
  for (int i = 0; i < 2; i++) {
    counters counted = {0, 0};
    zb_server *server = create(service, config);
    OK(zb_server_start(server, upper, &counted, count_release));
    zb_client_config wanted = client_of_service();
    zb_client *client = connected(service, &wanted);
    zb_view view;
    OK(zb_client_call(client, BYTES("given"), PATIENCE, &view));
    CHECK(equals(view.data, view.len, "GIVEN"));
    zb_view_release(&view);
    zb_client_close(client);
    zb_server_close(server);
  }
  CHECK(close(listener) == 0 && unlink(address.sun_path) == 0 && rmdir(folder) == 0);
}

/* Clients of channels have no number. */
static int32_t anonymous(zb_frame *frame, void *user) {
  (void)user;
  zb_client_identity client = identity(frame);
  CHECK(client.number == 0 && client.pid == 0 && client.label == NULL && client.label_len == 0);
  return 0;
}

static void on_channels(void) {
  for (uint32_t kind = ZB_SERVER_IN_PLACE; kind <= ZB_SERVER_MUTABLE; kind++) {
    const char *channel = name("channel");
    counters counted = {0, 0};
    zb_server *server = serve(channel, anonymous, &counted, server_config(kind));
    CHECK(zb_server_clients(server) == 0);
    zb_client *client = connected(channel, NULL);
    zb_view view;
    OK(zb_client_call(client, BYTES("x"), PATIENCE, &view));
    zb_view_release(&view);
    CHECK(zb_server_clients(server) == 1);
    zb_client_close(client);
    zb_server_close(server);
  }
}

static void misuse(void) {
  const char *service = name("misuse");
  zb_server *server = (zb_server *)&server;
  zb_service_config config = service_config();
  FAILS(ZB_BAD_CONFIG, zb_service_create(service, &config, NULL));
  FAILS(ZB_BAD_CONFIG, zb_service_create(NULL, &config, &server));
  CHECK(server == NULL);
  config.size -= 1;
  FAILS(ZB_BAD_CONFIG, zb_service_create(service, &config, &server));
  config = service_config();
  config.users_len = 1;
  FAILS(ZB_BAD_CONFIG, zb_service_create(service, &config, &server));
  CHECK(says("users"));
  config = service_config();
  config.groups_len = SIZE_MAX / 2;
  config.groups = &(uint32_t){0};
  FAILS(ZB_TOO_LARGE, zb_service_create(service, &config, &server));
  config = service_config();
  config.directory = "/tmp/\xff";
  FAILS(ZB_BAD_CONFIG, zb_service_create(service, &config, &server));
  CHECK(zb_last_error()->asked == 5 && says("directory"));
  config = service_config();
  config.wait = 9;
  FAILS(ZB_BAD_CONFIG, zb_service_create(service, &config, &server));
  config = service_config();
  config.has_listener = 1;
  config.listener = -1;
  FAILS(ZB_SYSTEM, zb_service_create(service, &config, &server));
  CHECK(zb_server_clients(NULL) == 0);
  FAILS(ZB_BAD_CONFIG, zb_frame_client(NULL, NULL));

  config = service_config();
  config.users = (const uint32_t[]){12345, 12346};
  config.users_len = 2;
  server = create(service, config);
  zb_client_config wanted = client_of_service();
  zb_client *client;
  /* What a program has that was compiled with the first header. */
  wanted.size = offsetof(zb_client_config, ring_size);
  wanted.channel = ZB_CHANNEL_ANY;
  wanted.directory = wanted.label = "\xff";
  FAILS(ZB_NOT_RUNNING, zb_client_connect(service, &wanted, 0, &client));
  wanted.size -= 1;
  FAILS(ZB_BAD_CONFIG, zb_client_connect(service, &wanted, 0, &client));
  wanted = client_of_service();
  wanted.label = "\xff";
  FAILS(ZB_BAD_CONFIG, zb_client_connect(service, &wanted, 0, &client));
  wanted = client_of_service();
  OK(zb_client_connect(service, &wanted, PATIENCE, &client));
  uint64_t sequence;
  zb_frame frame;
  OK(zb_client_send(client, BYTES("x"), &sequence));
  OK(zb_server_receive(server, PATIENCE, &frame));
  zb_client_identity small = {.size = 4};
  FAILS(ZB_BAD_CONFIG, zb_frame_client(&frame, NULL));
  FAILS(ZB_BAD_CONFIG, zb_frame_client(&frame, &small));
  small.size = offsetof(zb_client_identity, label);
  OK(zb_frame_client(&frame, &small));
  CHECK(small.number == 1 && small.label == NULL);
  zb_frame_abandon(&frame);
  zb_client_close(client);
  close_last(server, service);
}

int main(void) {
  CHECK(mkdtemp(directory) != NULL);
  many_clients();
  pulling();
  shut_down();
  stopped_by_its_handler();
  two_servers();
  callbacks_at_the_same_time();
  given_listener();
  on_channels();
  misuse();
  CHECK(rmdir(directory) == 0);
  puts("services hold");
  return 0;
}
