/*
 * What the C tests share: checks, names, servers and clients. Each test is one file that includes this.
 */

#ifndef SUPPORT_H
#define SUPPORT_H

#include "zerobuffer.h"

#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#define SECOND INT64_C(1000000000)
#define PATIENCE (30 * SECOND)

static inline void failed(const char *what, const char *file, int line) {
  const zb_error *error = zb_last_error();
  fprintf(stderr, "%s:%d: %s\n  last error of this thread: %d %s\n", file, line, what, error->status,
          error->message);
  exit(1);
}

#define CHECK(condition) ((condition) ? (void)0 : failed(#condition, __FILE__, __LINE__))
#define OK(call) CHECK((call) == ZB_OK)
/* The call fails with this status, and the last error says so. */
#define FAILS(expected, call) CHECK((call) == (expected) && zb_last_error()->status == (expected))
#define BYTES(text) ((const uint8_t *)(text)), (sizeof(text) - 1)

/* Names of this process, so that programs do not meet. */
static inline const char *name(const char *what) {
  static char names[8][64];
  static int next;
  char *made = names[next++ % 8];
  snprintf(made, sizeof names[0], "c-test-%s-%d", what, (int)getpid());
  return made;
}

static inline bool equals(const uint8_t *data, size_t len, const char *text) {
  return len == strlen(text) && memcmp(data, text, len) == 0;
}

static inline bool says(const char *text) {
  const zb_error *error = zb_last_error();
  return error->message_len == strlen(error->message) && strstr(error->message, text) != NULL;
}

/* Upper case; "fail" fails with a message, "code" with a number, "grow" grows by 4, "meta" becomes the
 * client's metadata. Counts its calls and its releases. */
typedef struct counters {
  int calls, releases;
} counters;

static inline int32_t upper(zb_frame *frame, void *user) {
  __atomic_add_fetch(&((counters *)user)->calls, 1, __ATOMIC_RELAXED);
  if (equals(frame->data, frame->len, "fail")) {
    CHECK(zb_frame_fail(frame, "refused on request", 18) == ZB_OK);
    return 0;
  }
  if (equals(frame->data, frame->len, "code")) return 42;
  if (equals(frame->data, frame->len, "grow")) {
    CHECK(zb_frame_resize(frame, frame->capacity + 1) == ZB_TOO_LARGE);
    CHECK(zb_frame_resize(frame, 8) == ZB_OK && frame->len == 8);
    CHECK(memcmp(frame->data, "grow\0\0\0\0", 8) == 0);
    memcpy(frame->data, "GROWN!!!", 8);
    return 0;
  }
  if (equals(frame->data, frame->len, "meta")) {
    const uint8_t *data;
    size_t len;
    CHECK(zb_frame_metadata(frame, &data, &len) == ZB_OK);
    CHECK(zb_frame_resize(frame, len) == ZB_OK);
    memcpy(frame->data, data, len);
    return 0;
  }
  CHECK(zb_frame_respond(frame) == ZB_INVALID_STATE);
  zb_frame_abandon(frame); /* does nothing */
  for (size_t i = 0; i < frame->len; i++)
    if (frame->data[i] >= 'a' && frame->data[i] <= 'z') frame->data[i] -= 32;
  return 0;
}

static inline void count_release(void *user) {
  __atomic_add_fetch(&((counters *)user)->releases, 1, __ATOMIC_RELAXED);
}

static inline zb_server_config server_config(uint32_t kind) {
  zb_server_config config;
  memset(&config, 0, sizeof config);
  config.size = sizeof config;
  config.kind = kind;
  config.metadata_size = 256;
  config.payload_size = 1 << 16;
  return config;
}

static inline zb_client_config client_config(uint32_t channel) {
  zb_client_config config;
  memset(&config, 0, sizeof config);
  config.size = sizeof config;
  config.channel = channel;
  return config;
}

static inline zb_server *serve(const char *channel, zb_handler handler, void *user, zb_server_config config) {
  zb_server *server;
  OK(zb_server_create(channel, &config, &server));
  OK(zb_server_start(server, handler, user, count_release));
  CHECK(zb_server_is_running(server));
  return server;
}

static inline zb_client *connected(const char *channel, const zb_client_config *config) {
  zb_client *client;
  OK(zb_client_connect(channel, config, PATIENCE, &client));
  return client;
}

static inline int32_t hang(zb_frame *frame, void *pipe_end) {
  (void)frame;
  CHECK(write(*(int *)pipe_end, "h", 1) == 1);
  while (pause() != 0) continue; /* until it is killed */
  return 0;
}

/* A child process that serves until it is killed. */
static inline pid_t server_process(const char *channel, zb_handler handler, int tell[2]) {
  CHECK(pipe(tell) == 0);
  pid_t child = fork();
  CHECK(child >= 0);
  if (child == 0) {
    static counters counted;
    zb_server_config config = server_config(ZB_SERVER_IN_PLACE);
    serve(channel, handler, handler == hang ? (void *)&tell[1] : (void *)&counted, config);
    CHECK(write(tell[1], "r", 1) == 1);
    for (;;) pause();
  }
  char told;
  CHECK(read(tell[0], &told, 1) == 1 && told == 'r');
  return child;
}

static inline void end(pid_t child, int tell[2]) {
  CHECK(kill(child, 9) == 0 && waitpid(child, NULL, 0) == child);
  close(tell[0]);
  close(tell[1]);
}

static inline void next_is(int pipe_end, char expected) {
  char found;
  CHECK(read(pipe_end, &found, 1) == 1 && found == expected);
}

#endif
