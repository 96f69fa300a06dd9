/*
 * zerobuffer.h: the C interface of zerobuffer, whose library is libzerobuffer.
 *
 * Made by `cargo xtask header` from the sources of crates/zerobuffer-ffi: do not edit.
 *
 * What holds for every function:
 *
 * - It returns ZB_OK, or why not; zb_last_error() then has the facts, for this thread. Functions that
 *   return bool say false if they cannot tell.
 * - Names are UTF-8 and end with a zero byte. Timeouts are nanoseconds: 0 looks once, ZB_FOREVER (or
 *   any negative number) has no deadline.
 * - Handles (zb_client, zb_server, zb_reader, zb_writer) are made by one function and freed by its
 *   ..._close. Guards (zb_buffer, zb_view, zb_frame) are structs in your memory that say where bytes in
 *   shared memory are, and whose; nothing is allocated for one. A guard may be moved, not duplicated.
 *   Handles are const for every call but ..._close, which frees them: what a call changes lies behind them.
 * - Null pointers, wrong sizes, names and numbers, and guards that were used before are found and
 *   refused. A handle that was closed, and a handle on two threads against its documentation, are not.
 * - In a process that was forked off, every call fails with ZB_WRONG_PROCESS and closing touches
 *   nothing.
 */

#ifndef ZEROBUFFER_C_H
#define ZEROBUFFER_C_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/**
 * The version of this binary interface. Functions, statuses, and fields at the end of structs
 * that start with their size may be added without a change of it.
 */
#define ZB_ABI_VERSION 1

/**
 * The error is not about a request that a peer's end left unanswered.
 */
#define ZB_REQUEST_NONE 0

/**
 * The handler never ran on the request: it is safe to send it again.
 */
#define ZB_REQUEST_NOT_STARTED 1

/**
 * The server had taken the request: its effects may or may not have happened.
 */
#define ZB_REQUEST_IN_DOUBT 2

/**
 * For a timeout: no deadline.
 */
#define ZB_FOREVER -1

/**
 * Spin for a while, then sleep. For nearly everybody.
 */
#define ZB_WAIT_DEFAULT 0

/**
 * Sleep at once: the least CPU time.
 */
#define ZB_WAIT_PARK 1

/**
 * Spin as long as no other thread needs the CPU: the lowest latency, for a core that has nothing else to do.
 */
#define ZB_WAIT_SPIN 2

/**
 * A client finds out what there is under its name: a service first, then an in-place channel.
 */
#define ZB_CHANNEL_ANY 0

/**
 * Protocol version 2: the response lies where the request was. A service or a channel.
 */
#define ZB_CHANNEL_IN_PLACE 1

/**
 * Protocol version 1: the response lies in a buffer of its own.
 */
#define ZB_CHANNEL_TWO_BUFFERS 2

/**
 * A service, which serves any number of clients, and no channel.
 */
#define ZB_CHANNEL_SERVICE 3

/**
 * Requests are edited where they lie.
 */
#define ZB_SERVER_IN_PLACE 0

/**
 * Two buffers: the handler edits a copy of the request, which becomes the response.
 */
#define ZB_SERVER_MUTABLE 1

/**
 * Two buffers: the handler reads the request and writes a response with `zb_frame_reply`.
 */
#define ZB_SERVER_IMMUTABLE 2

/**
 * A handle is used by one thread at a time. The fastest.
 */
#define ZB_THREADS_ONE 0

/**
 * A handle is used by any number of threads at once.
 */
#define ZB_THREADS_MANY 1

/**
 * Version 1: the peer is alive as long as its process id is, as existing v1 programs do it.
 */
#define ZB_LIVENESS_PID 0

/**
 * Version 1: a reader is alive as long as it holds its lock file; for containers that share /tmp.
 */
#define ZB_LIVENESS_LOCK 1

/**
 * Version 1: nobody is ever taken for dead; for containers that share nothing but /dev/shm.
 */
#define ZB_LIVENESS_NONE 2

/**
 * A client of one channel.
 *
 * Threads: with `ZB_THREADS_ONE`, the default, one thread at a time uses it, with the views and
 * the buffer that come from it; which thread that is may change. With `ZB_THREADS_MANY` any
 * number of threads use it at once, and only `zb_client_close` must be the last call. Either way
 * `zb_client_shutdown` may be called on any thread at any time before that.
 */
typedef struct zb_client zb_client;

/**
 * Version 1: a reader, which creates a buffer and owns it.
 *
 * Threads: any number may use it at once; each frame goes to one of them. `zb_reader_close` must
 * be the last call.
 */
typedef struct zb_reader zb_reader;

/**
 * A server of one channel, or of a service.
 *
 * Threads: one at a time uses it, and the frame received from it; `zb_server_shutdown`,
 * `zb_server_is_client_connected` and `zb_server_clients` may be called on any other meanwhile. Handlers run on
 * threads of the library.
 */
typedef struct zb_server zb_server;

/**
 * Version 1: a writer, which attaches to a reader's buffer and fills it.
 *
 * Threads: one at a time. `zb_writer_shutdown` may be called on any other meanwhile.
 */
typedef struct zb_writer zb_writer;

/**
 * `ZB_OK`, or why a call failed. The numbers are stable, and the same in all languages.
 */
typedef int32_t zb_status;

/**
 * What there is to know about a failed call. Numbers that a status has no use for are 0, texts
 * empty.
 */
typedef struct zb_error {
  /**
   * Bytes of this struct in the library in use. Fields may be added at its end.
   */
  size_t size;
  /**
   * The status that the call returned.
   */
  zb_status status;
  /**
   * `ZB_SYSTEM`: the error number, see errno(3).
   */
  int32_t os_error;
  /**
   * The request that the error is about: `ZB_HANDLER_FAILED`, `ZB_UNKNOWN_SEQUENCE`, and
   * `ZB_PEER_DIED` or `ZB_PEER_CLOSED` if they are about one. Sequence numbers start at 1.
   */
  uint64_t sequence;
  /**
   * `ZB_PEER_DIED`, `ZB_PEER_CLOSED`: what is known of that request, `ZB_REQUEST_*`.
   */
  int32_t request_state;
  /**
   * `ZB_HANDLER_FAILED`: 1 error, 2 panic, 3 dropped unanswered, from 256 the application's.
   */
  uint32_t handler_status;
  /**
   * What was asked for, needed or found: bytes; nanoseconds for `ZB_TIMEOUT`; the owner's user
   * id for `ZB_FOREIGN_OBJECT`.
   */
  uint64_t asked;
  /**
   * What is possible, free or expected instead.
   */
  uint64_t allowed;
  /**
   * `ZB_FULL`: requests sent and not released yet.
   */
  uint64_t in_flight;
  /**
   * One sentence for a person, with what to do. Ends with a zero byte, as the other texts do.
   */
  const char *message;
  /**
   * Bytes of `message`.
   */
  size_t message_len;
  /**
   * The name of the channel, object, field or value that the error is about.
   */
  const char *subject;
  /**
   * Bytes of `subject`.
   */
  size_t subject_len;
  /**
   * What the handler said; the reason, rule, range or operation for other statuses.
   */
  const char *detail;
  /**
   * Bytes of `detail`.
   */
  size_t detail_len;
} zb_error;

/**
 * What a server is made of. Set `size` to `sizeof(zb_server_config)` and the rest to zero, then
 * change what is to differ: zero means the default, except for the two block sizes.
 */
typedef struct zb_server_config {
  /**
   * `sizeof(zb_server_config)`.
   */
  size_t size;
  /**
   * `ZB_SERVER_*`. Default: in place.
   */
  uint32_t kind;
  /**
   * Permission bits of the segment, as 0660. Default 0600: the same user only.
   */
  uint32_t mode;
  /**
   * Bytes of metadata for each direction; a message needs 8 more than its length.
   */
  size_t metadata_size;
  /**
   * Bytes of the ring. A frame of n bytes takes n + 64 of it, rounded up to a multiple of 64.
   */
  size_t payload_size;
  /**
   * `ZB_WAIT_*`: how the server waits for requests.
   */
  uint32_t wait;
  /**
   * In place: threads that `zb_server_start` runs the handler on. Default 1.
   */
  uint32_t workers;
  /**
   * In place: the server's metadata, which each client can read; null for none.
   */
  const uint8_t *metadata;
  /**
   * Bytes of `metadata`.
   */
  size_t metadata_len;
  /**
   * Nanoseconds that `zb_server_stop` waits for running handlers, and then for the client to
   * read its responses. Default 2 s.
   */
  int64_t stop_timeout_ns;
  /**
   * Two buffers: `ZB_LIVENESS_*`.
   */
  uint32_t liveness;
  /**
   * Zero.
   */
  uint32_t reserved;
} zb_server_config;

/**
 * A request in a server's hands: bytes in shared memory, to be edited where they lie.
 *
 * In a handler it is valid until the handler returns, and its bytes are then the response. From
 * `zb_server_receive` it is valid until `zb_frame_respond`, `zb_frame_fail` or `zb_frame_abandon`.
 *
 * Threads: in a handler, the handler's. A received one is used on the thread that uses the
 * server, unless it was detached.
 */
typedef struct zb_frame {
  /**
   * The first byte. For the handler of an immutable server to read only.
   */
  uint8_t *data;
  /**
   * Bytes at `data`; `zb_frame_resize` changes it.
   */
  size_t len;
  /**
   * The most bytes that the response can have.
   */
  size_t capacity;
  /**
   * The request's number, as its client counts.
   */
  uint64_t sequence;
  /**
   * The library's.
   */
  uint64_t opaque[3];
} zb_frame;

/**
 * What a server runs on each request. It edits the frame, and returns 0; or it returns another
 * number, or calls `zb_frame_fail`, and the client gets `ZB_HANDLER_FAILED`. It must not unwind:
 * no exception, no `longjmp`.
 *
 * Threads: an in-place server or a service with several workers calls it on several threads at once.
 */
typedef int32_t (*zb_handler)(struct zb_frame *frame, void *user);

/**
 * Frees what a handler uses.
 */
typedef void (*zb_release)(void *user);

/**
 * What a server of a service is made of. Set `size` to `sizeof(zb_service_config)` and the rest to zero,
 * then change what is to differ: zero means the default.
 */
typedef struct zb_service_config {
  /**
   * `sizeof(zb_service_config)`.
   */
  size_t size;
  /**
   * Bytes of the ring of a client that asks for none in particular. Default 32 MiB, all of which is
   * reserved when the client attaches.
   */
  size_t ring_size;
  /**
   * Bytes of each of the two metadata blocks. Default 4096.
   */
  size_t metadata_size;
  /**
   * The largest ring that a client can ask for. Default 1 GiB, which is also the most.
   */
  size_t max_ring_size;
  /**
   * The most bytes of all clients' memory together. Default: half of what the machine, or the cgroup, has
   * free when the service is created. Beyond it clients get `ZB_NO_SPACE`.
   */
  uint64_t max_bytes;
  /**
   * The most clients at the same time. Default 64. Further ones get `ZB_BUSY`, once their timeout has passed.
   */
  uint32_t max_clients;
  /**
   * The most clients of one user at the same time. Default: half of `max_clients` for other users, all of them
   * for this server's own.
   */
  uint32_t max_clients_per_user;
  /**
   * `ZB_WAIT_*`: how the server waits for requests.
   */
  uint32_t wait;
  /**
   * Threads that `zb_server_start` runs the handler on, for all clients together. Default 1.
   */
  uint32_t workers;
  /**
   * The server's metadata, which each client can read; null for none.
   */
  const uint8_t *metadata;
  /**
   * Bytes of `metadata`.
   */
  size_t metadata_len;
  /**
   * Nanoseconds that `zb_server_stop` waits for running handlers. Default 2 s.
   */
  int64_t stop_timeout_ns;
  /**
   * Ids of users whose programs may attach, besides this server's own user and root; null for none.
   */
  const uint32_t *users;
  /**
   * How many.
   */
  size_t users_len;
  /**
   * Ids of groups whose members may attach, the last of which owns the directory and the socket; null for none.
   */
  const uint32_t *groups;
  /**
   * How many.
   */
  size_t groups_len;
  /**
   * The runtime directory, UTF-8 that ends with a zero byte. Null for `$ZEROBUFFER_DIR`, else
   * `/run/zerobuffer` for root, else `$XDG_RUNTIME_DIR/zerobuffer`, else `/tmp/zerobuffer-<uid>`.
   */
  const char *directory;
  /**
   * Not zero: `listener` is set.
   */
  uint32_t has_listener;
  /**
   * A listening `SOCK_SEQPACKET` socket that this process was given, by systemd for instance, or that several
   * servers inherit. It is neither closed, removed nor shut down. Default: a socket of the server's own.
   */
  int32_t listener;
  /**
   * The most requests of one client that are worked on at the same time. Default: as many as there are
   * handlers.
   */
  uint32_t handlers_per_client;
  /**
   * Zero.
   */
  uint32_t reserved;
} zb_service_config;

/**
 * Who a client of a service is, by the system's word and by its own.
 */
typedef struct zb_client_identity {
  /**
   * `sizeof(zb_client_identity)`, set by the caller: no more than that is written.
   */
  size_t size;
  /**
   * The number of its connection on this server, from 1, never used again; 0 for the client of a channel, of
   * which the rest is 0, too.
   */
  uint64_t number;
  /**
   * What it says of itself, UTF-8; valid as long as the frame is, and its server is not stopped.
   */
  const uint8_t *label;
  /**
   * Bytes of `label`.
   */
  size_t label_len;
  /**
   * The process that connected; 0 if it is not visible from this one's pid namespace.
   */
  uint32_t pid;
  /**
   * Its effective user when it connected.
   */
  uint32_t uid;
  /**
   * Its effective group when it connected.
   */
  uint32_t gid;
  /**
   * Zero.
   */
  uint32_t reserved;
} zb_client_identity;

/**
 * What a client is made of. Set `size` to `sizeof(zb_client_config)` and the rest to zero, then
 * change what is to differ: zero means the default.
 */
typedef struct zb_client_config {
  /**
   * `sizeof(zb_client_config)`.
   */
  size_t size;
  /**
   * `ZB_CHANNEL_*`. Default: the client finds out.
   */
  uint32_t channel;
  /**
   * `ZB_THREADS_*`. Default: one at a time.
   */
  uint32_t threads;
  /**
   * `ZB_WAIT_*`: how the client waits for responses and for room.
   */
  uint32_t wait;
  /**
   * The most requests in flight, held responses included. Default 4096.
   */
  uint32_t max_in_flight;
  /**
   * Nanoseconds that sending waits for room. Default 5 s.
   */
  int64_t send_timeout_ns;
  /**
   * The client's metadata, which the handler finds in every frame; null for none.
   */
  const uint8_t *metadata;
  /**
   * Bytes of `metadata`.
   */
  size_t metadata_len;
  /**
   * In place, not zero: `zb_client_call` and `zb_client_reconnect` send requests again that a
   * server's end left not started.
   */
  uint32_t resend_not_started;
  /**
   * Not zero: `owner` is set.
   */
  uint32_t has_owner;
  /**
   * The user id that must own the channel's objects. Default: the process's effective user.
   */
  uint32_t owner;
  /**
   * Two buffers: permission bits of the response buffer. Default 0600.
   */
  uint32_t mode;
  /**
   * Two buffers: `ZB_LIVENESS_*`.
   */
  uint32_t liveness;
  /**
   * Not zero: the client mends itself, for programs that run for long. It has up to so many connections to different
   * servers of a service, or one to a channel; sends each call on the one with the fewest under way, again elsewhere
   * if a server's end left it not started, and connects to new servers as servers come and go. It is for any number
   * of threads, whatever `threads` says, and for `zb_client_call`, `zb_client_call_async` and
   * `zb_client_call_async_with`. Default: one connection, whose end is the caller's to see.
   */
  uint32_t connections;
  /**
   * Two buffers: metadata bytes of the response buffer, which the client makes; 0 with
   * `response_payload_size` 0: 4 KiB.
   */
  size_t response_metadata_size;
  /**
   * Two buffers: ring bytes of the response buffer. Default 32 MiB. Responses of up to half of it, less
   * 24 bytes, always fit; requests in flight are bounded by half of it, too.
   */
  size_t response_payload_size;
  /**
   * Services: bytes of the ring. Default: what the server gives its clients.
   */
  size_t ring_size;
  /**
   * Services: what the server calls this client, UTF-8 of at most 192 bytes that ends with a zero byte. Null for the
   * program's name.
   */
  const char *label;
  /**
   * Services: the runtime directory in which their sockets are, UTF-8 that ends with a zero byte. Null for
   * `$ZEROBUFFER_DIR`, else every place in which this user's services, or root's, may be.
   */
  const char *directory;
} zb_client_config;

/**
 * Bytes in shared memory that are the caller's to read, until `zb_view_release` releases them.
 *
 * It may be moved in memory, as long as one copy of it is used. All zero, or after its release,
 * it holds nothing, and releasing it does nothing.
 *
 * Threads: a view of a client for one thread is released on a thread that may use the client.
 * After `zb_view_detach`, and if it comes from another handle, it may be released on any thread,
 * and outlive its handle.
 */
typedef struct zb_view {
  /**
   * The first byte; not null as long as something is held.
   */
  const uint8_t *data;
  /**
   * Bytes at `data`.
   */
  size_t len;
  /**
   * The number of the request that this answers; of the frame, as its writer counts.
   */
  uint64_t sequence;
  /**
   * The library's.
   */
  uint64_t opaque[8];
} zb_view;

/**
 * Bytes in shared memory that are the caller's to fill; then `zb_buffer_commit` sends them, or
 * `zb_buffer_abandon` ends them. They hold whatever was there before: write all of them.
 *
 * A handle has at most one open buffer, which belongs to the thread that may use the handle. That of a
 * client for many threads may be used on any thread and outlive the client; other threads that send
 * wait until it is committed or abandoned.
 */
typedef struct zb_buffer {
  /**
   * The first byte.
   */
  uint8_t *data;
  /**
   * Bytes to send: as asked for. A request may be made shorter, or longer up to `capacity`.
   */
  size_t len;
  /**
   * The most bytes that there is room for, here and for the response.
   */
  size_t capacity;
  /**
   * The library's.
   */
  uint64_t opaque[2];
} zb_buffer;

/**
 * A request that was sent again.
 */
typedef struct zb_resent {
  /**
   * Its number on the former connection.
   */
  uint64_t former;
  /**
   * Its number now.
   */
  uint64_t sequence;
} zb_resent;

/**
 * A request that was not sent again.
 */
typedef struct zb_lost {
  /**
   * Its number on the former connection.
   */
  uint64_t sequence;
  /**
   * `ZB_REQUEST_NOT_STARTED` or `ZB_REQUEST_IN_DOUBT`.
   */
  int32_t state;
  /**
   * Zero.
   */
  uint32_t reserved;
} zb_lost;

/**
 * What became of the requests of a former connection. Both lists are the thread's: they are valid
 * until its next `zb_client_reconnect`, of whichever client, or its end.
 */
typedef struct zb_reconnected {
  /**
   * Requests that were sent again, in their order.
   */
  const struct zb_resent *resent;
  /**
   * How many.
   */
  size_t resent_count;
  /**
   * Requests that were not, in their order.
   */
  const struct zb_lost *lost;
  /**
   * How many.
   */
  size_t lost_count;
} zb_reconnected;

/**
 * What there is to know about a client at this moment.
 */
typedef struct zb_client_state {
  /**
   * `sizeof(zb_client_state)`, set by the caller: no more than that is written.
   */
  size_t size;
  /**
   * The most bytes that a request can have.
   */
  size_t max_request_size;
  /**
   * Requests sent whose bytes are not back in the ring yet; with two buffers, whose responses
   * have not come.
   */
  size_t in_flight;
  /**
   * 1 if the response lies where the request was, 0 for two buffers, and where there are several connections.
   */
  uint32_t is_in_place;
  /**
   * Two buffers: 1 if answers may not match, because a request that was cancelled has no response
   * yet.
   */
  uint32_t is_desynchronised;
} zb_client_state;

/**
 * What a call of `zb_client_call_async` ends with, exactly once. `ZB_OK` comes with the response, which is the
 * callee's from then on: copy the struct to where it is to stay, and release it with `zb_view_release`, at once or
 * later, on any thread, before or after the client is closed. Any other status comes with an empty view, and
 * `zb_last_error` has the facts until the callee fails in a call of its own. `ZB_CANCELLED` is that of a call that
 * `zb_client_cancel_call` has cancelled.
 *
 * It runs on a thread of the library, or on the one that cancels the call. A client of one connection has one such
 * thread, which completes its calls one after the other. One with `connections` has a thread for each connection, for one
 * that was lost until its calls have ended, and one more for calls without a connection: there several callbacks
 * run at the same time, and what they share is theirs to protect. The callback of a cancelled call may run beside any other.
 *
 * It is to be short and must not block: other calls wait for it. It may start and cancel calls, and shut the client
 * down; to send, it starts a call. It may close the client if nothing else can be using it: no other thread, and no
 * other callback that runs at the same time. It must not unwind: no exception, no `longjmp`.
 */
typedef void (*zb_done)(zb_status status, struct zb_view *response, void *context);

/**
 * Writes the `len` bytes of a request where the server will read them. All of them: they hold whatever was there
 * before. What `zb_done` must not do, this must not do either, nor use the client.
 */
typedef void (*zb_fill)(uint8_t *data, size_t len, void *context);

/**
 * What a version 1 reader is made of; see `zb_server_config` for how to fill it.
 */
typedef struct zb_reader_config {
  /**
   * `sizeof(zb_reader_config)`.
   */
  size_t size;
  /**
   * Bytes of metadata; a message needs 8 more than its length.
   */
  size_t metadata_size;
  /**
   * Bytes of the ring. A frame of n bytes takes n + 16 of it.
   */
  size_t payload_size;
  /**
   * Permission bits of the buffer. Default 0600.
   */
  uint32_t mode;
  /**
   * `ZB_WAIT_*`: how the reader waits for frames.
   */
  uint32_t wait;
  /**
   * `ZB_LIVENESS_*`: how it finds out that a writer has ended.
   */
  uint32_t liveness;
  /**
   * Zero.
   */
  uint32_t reserved;
} zb_reader_config;

/**
 * What a version 1 writer is made of; see `zb_server_config` for how to fill it.
 */
typedef struct zb_writer_config {
  /**
   * `sizeof(zb_writer_config)`.
   */
  size_t size;
  /**
   * Nanoseconds that a write waits for room, in all. Default 5 s.
   */
  int64_t write_timeout_ns;
  /**
   * `ZB_WAIT_*`: how the writer waits for room.
   */
  uint32_t wait;
  /**
   * `ZB_LIVENESS_*`: how it finds out that the reader has ended.
   */
  uint32_t liveness;
  /**
   * Not zero: `owner` is set.
   */
  uint32_t has_owner;
  /**
   * Not zero: start again with sequence 1 on a used buffer whose last one cannot be determined.
   */
  uint32_t restart_sequence;
  /**
   * The user id that must own the buffer's objects. Default: the process's effective user.
   */
  uint32_t owner;
  /**
   * Zero.
   */
  uint32_t reserved;
} zb_writer_config;

/**
 * It worked.
 */
#define ZB_OK 0

/**
 * Not the status of a call, but of what became of one: it was cancelled. See `zb_client_cancel_call`.
 */
#define ZB_CANCELLED -1

/**
 * The channel name breaks the rules for names.
 */
#define ZB_BAD_NAME 1

/**
 * A parameter or a configuration value lies outside of what is allowed; a null pointer is one such.
 */
#define ZB_BAD_CONFIG 2

/**
 * No server serves the channel; version 1: no reader has the buffer.
 */
#define ZB_NOT_RUNNING 3

/**
 * Another client has the channel; version 1: another writer the buffer.
 */
#define ZB_BUSY 4

/**
 * Another server serves the channel; version 1: another reader has the buffer.
 */
#define ZB_ALREADY_RUNNING 5

/**
 * The operating system refuses access to an object.
 */
#define ZB_PERMISSION_DENIED 6

/**
 * An object of that name exists, but has another owner or is of another kind.
 */
#define ZB_FOREIGN_OBJECT 7

/**
 * The segment has another protocol version.
 */
#define ZB_INCOMPATIBLE 8

/**
 * There is not enough memory, or not enough of another resource, to create an object.
 */
#define ZB_NO_SPACE 9

/**
 * The deadline passed.
 */
#define ZB_TIMEOUT 10

/**
 * The ring had no room until the deadline.
 */
#define ZB_FULL 11

/**
 * More bytes than can ever fit.
 */
#define ZB_TOO_LARGE 12

/**
 * The peer's process ended without closing the channel.
 */
#define ZB_PEER_DIED 13

/**
 * The peer closed the channel cleanly.
 */
#define ZB_PEER_CLOSED 14

/**
 * The server's handler failed on this request.
 */
#define ZB_HANDLER_FAILED 15

/**
 * The peer broke the protocol.
 */
#define ZB_PROTOCOL_VIOLATION 16

/**
 * The handle was made before a fork and is used in the child.
 */
#define ZB_WRONG_PROCESS 17

/**
 * No request with that sequence number is waiting for a response.
 */
#define ZB_UNKNOWN_SEQUENCE 18

/**
 * A buffer of this client or writer is open already.
 */
#define ZB_CLAIM_OPEN 19

/**
 * All sequence numbers of this connection are used.
 */
#define ZB_SEQUENCE_EXHAUSTED 20

/**
 * The object is not in the state that the call needs.
 */
#define ZB_INVALID_STATE 21

/**
 * A system call failed; `zb_error::os_error` says how.
 */
#define ZB_SYSTEM 22

/**
 * This platform, or this kind of channel, cannot do it.
 */
#define ZB_UNSUPPORTED 23

/**
 * The object was shut down on this side, possibly by another thread: see `zb_client_shutdown`.
 */
#define ZB_CLOSED 24

/**
 * Version 1: no frame of this length can ever be placed at the ring's present position.
 */
#define ZB_WOULD_NEVER_FIT 100

/**
 * Version 1: no writer has attached to the buffer yet.
 */
#define ZB_NOT_CONNECTED_YET 101

/**
 * Version 1: a frame is missing.
 */
#define ZB_SEQUENCE_GAP 102

/**
 * Version 1: metadata is written once in a buffer's life, and it has been.
 */
#define ZB_METADATA_ALREADY_WRITTEN 103

/**
 * Version 1: a frame has at least one byte.
 */
#define ZB_EMPTY_FRAME 104

/**
 * Version 1: responses can no longer be matched with requests.
 */
#define ZB_DESYNCHRONISED 105

/**
 * Version 1: the last sequence number of a previous writer cannot be determined.
 */
#define ZB_SEQUENCE_UNKNOWN 106

#ifdef __cplusplus
extern "C" {
#endif // __cplusplus

/**
 * The `ZB_ABI_VERSION` that the library in use was built with. A program compares it with that of
 * its header before anything else.
 */
uint32_t zb_abi_version(void);

/**
 * Whether core dumps of this process hold what its channels carry. They do not, unless this is called with
 * true, for the handles that are made from then on. May be called on any thread at any time.
 */
void zb_include_in_core_dumps(bool include);

/**
 * The facts about the latest call that failed on this thread. Never null. Valid until the next
 * call on this thread that fails; a call that succeeds changes nothing.
 */
const struct zb_error *zb_last_error(void);

/**
 * The `payload_size` of a ring that holds exactly `in_flight` frames of up to `frame_size` bytes at the
 * same time: requests under way and responses that are held, together. `SIZE_MAX`, which a server
 * refuses, where that is more than memory can hold. Two buffers may need one frame more.
 */
size_t zb_payload_size_for_frames(size_t frame_size,
                                  size_t in_flight);

/**
 * Creates the channel `name`; clients can attach as soon as this returns. `config` may be null
 * for the defaults: in place, 1 KiB of metadata and 1 MiB of payload. `server` gets the handle,
 * or null.
 */
zb_status zb_server_create(const char *name,
                           const struct zb_server_config *config,
                           struct zb_server **server);

/**
 * Ends the server from any thread, while another one is inside of its calls: a `zb_server_receive` that
 * waits comes back at once, and it and every later one fails with `ZB_CLOSED`; a handler is called no
 * more, and one that waits for room comes back. `zb_server_stop` and `zb_server_close` do the rest, once
 * the thread has come back. Null does nothing, nor does a second time.
 */
void zb_server_shutdown(const struct zb_server *server);

/**
 * Stops the server cleanly, as `zb_server_stop`, and frees it. Null does nothing.
 *
 * A received frame that is not answered fails at its client; the handle stays until the frame was
 * answered, abandoned or detached, the first two of which change nothing then. Its bytes stay mapped until then.
 */
void zb_server_close(struct zb_server *server);

/**
 * Runs `handler` with `user` on every request, on threads of the library, until the server is
 * stopped.
 *
 * `release`, if it is not null, is called with `user` once nobody calls the handler any more: at the latest of
 * `zb_server_stop` and the return of a handler that was still running then; at once if this call fails. It may be
 * called on another thread.
 */
zb_status zb_server_start(const struct zb_server *server,
                          zb_handler handler,
                          void *user,
                          zb_release release);

/**
 * For an in-place server or a service without a handler: waits for the next request until the timeout has
 * passed. `frame` gets it, to be answered with `zb_frame_respond` or `zb_frame_fail` before the
 * next one is received, unless it is detached. Call it again and again: it also looks after
 * clients that go.
 */
zb_status zb_server_receive(const struct zb_server *server,
                            int64_t timeout_ns,
                            struct zb_frame *frame);

/**
 * Stops cleanly: takes nothing more, lets running handlers finish, tells the client, lets
 * it read its responses, and removes the channel's names, or the service's socket. Called again it does nothing. A received
 * frame that is not answered fails at its client.
 *
 * A handler may call it, and `zb_server_close` too: neither waits for that very handler,
 * whose client may hear `ZB_PEER_CLOSED` in place of its response.
 *
 * Fails with what made the background server stop before, if anything did.
 */
zb_status zb_server_stop(const struct zb_server *server);

/**
 * Whether threads are serving: false before `zb_server_start`, after `zb_server_stop`, and if the
 * server had to stop for a reason of its own.
 */
bool zb_server_is_running(const struct zb_server *server);

/**
 * Whether a client is attached at this moment; `zb_server_clients` says how many are to a service. Any thread may ask at any time before
 * `zb_server_close`, as with `zb_server_shutdown`.
 */
bool zb_server_is_client_connected(const struct zb_server *server);

/**
 * Changes the length of the response, up to the capacity; bytes that are added are zero. In place
 * only.
 */
zb_status zb_frame_resize(struct zb_frame *frame, size_t len);

/**
 * The client's metadata. `data` gets its address, `len` its length; valid as long as the frame
 * is, and its server is not stopped. No bytes if the client has none.
 */
zb_status zb_frame_metadata(struct zb_frame *frame, const uint8_t **data, size_t *len);

/**
 * Whether nobody gets the response any more: the client has cancelled the request, closed or died; with two buffers,
 * closed or died. To be asked between two pieces of long work, since it costs a system call. When it is true, whatever
 * the handler responds reaches nobody. False for a frame that was answered.
 *
 * A server that is being stopped still delivers the response, so this stays false: finish the response, or fail the
 * request. Only when `stop_timeout_ns` has passed, and the client of a server in place is told `ZB_PEER_CLOSED`, is it
 * true as well: a later response is not delivered.
 *
 * In a handler, and for a detached frame, any thread may ask while no other call with this frame is under way.
 */
bool zb_frame_is_cancelled(const struct zb_frame *frame);

/**
 * Answers with a failure: the client gets `ZB_HANDLER_FAILED` and as much of the message, UTF-8
 * of `len` bytes, as fits. A received frame is answered at once and is empty then; in a handler,
 * when it returns, whatever it returns.
 */
zb_status zb_frame_fail(struct zb_frame *frame, const char *message, size_t len);

/**
 * Gives a received frame up, and leaves it empty: the client gets `ZB_HANDLER_FAILED` with the handler
 * status 3. Does nothing for an empty or null one, and in a handler.
 */
void zb_frame_abandon(struct zb_frame *frame);

/**
 * Answers a received frame with its bytes as they are, and leaves it empty.
 */
zb_status zb_frame_respond(struct zb_frame *frame);

/**
 * Lets a received frame be used and answered on any thread, after others that came later, and
 * after its server was stopped. Its bytes stay where they are. From then on this server counts
 * with locked instructions.
 */
zb_status zb_frame_detach(struct zb_frame *frame);

/**
 * In the handler of an immutable server: the response, of `len` bytes, to be filled at `*data`.
 * Exactly once.
 */
zb_status zb_frame_reply(struct zb_frame *frame, size_t len, uint8_t **data);

/**
 * Creates a server of the service `name`: of any number of clients, each with memory of its own. Other processes
 * may create servers of the same service at the same time, and share its clients. `config` may be null for the
 * defaults. `server` gets the handle, or null; all functions of a `zb_server` are for it, too.
 *
 * Clients attach with `zb_client_connect` as soon as this returns, and find a service before a channel of the
 * same name. Nothing is left in the file system but an empty directory.
 */
zb_status zb_service_create(const char *name,
                            const struct zb_service_config *config,
                            struct zb_server **server);

/**
 * How many clients are attached at this moment: of a service any number, of a channel at most one. Any thread
 * may ask at any time before `zb_server_close`.
 */
size_t zb_server_clients(const struct zb_server *server);

/**
 * Fills `client`, of which `size` is set, with who has sent the request.
 */
zb_status zb_frame_client(struct zb_frame *frame, struct zb_client_identity *client);

/**
 * Attaches to the server of channel `name`, waiting for it until the timeout has passed; 0 tries
 * once.
 *
 * `config` may be null for the defaults. `client` gets the handle, or null.
 */
zb_status zb_client_connect(const char *name,
                            const struct zb_client_config *config,
                            int64_t timeout_ns,
                            struct zb_client **client);

/**
 * Ends the client from any thread, while others are inside of its calls: each call that waits comes
 * back at once, and it and every later one that could wait fails with `ZB_CLOSED`,
 * `zb_client_reconnect` too. Calls of `zb_client_call_async` end with it soon after. Once the threads have
 * come back `zb_client_close` frees it. Null does nothing, nor does a second time.
 */
void zb_client_shutdown(const struct zb_client *client);

/**
 * Closes the connection cleanly and frees the client. Null does nothing. Calls of `zb_client_call_async` have
 * ended when this returns, unless it is called in a callback, which it may be only while no other one can be running
 * (`zb_done`).
 *
 * An open buffer is abandoned. While views that were not detached, or a buffer, are
 * in the caller's hands, the connection stays until the last of them is released.
 */
void zb_client_close(struct zb_client *client);

/**
 * Sends a copy of `len` bytes and waits for the response, both within the timeout. A request that
 * has no response by then is cancelled. `response` gets the response, or is empty.
 *
 * While views of this client are held, waiting for room is bounded by the send timeout, and
 * nothing is sent again by itself.
 */
zb_status zb_client_call(const struct zb_client *client,
                         const uint8_t *data,
                         size_t len,
                         int64_t timeout_ns,
                         struct zb_view *response);

/**
 * Sends a copy of `len` bytes. `sequence` gets the number of the request.
 */
zb_status zb_client_send(const struct zb_client *client,
                         const uint8_t *data,
                         size_t len,
                         uint64_t *sequence);

/**
 * A request of `size` bytes to be filled in the ring, with room for a response of `capacity` bytes
 * if that is more, at a multiple of `alignment` (a power of two up to 4096; 0 for any) from a
 * page boundary.
 *
 * With two buffers capacity and alignment are not used.
 */
zb_status zb_client_acquire(const struct zb_client *client,
                            size_t size,
                            size_t capacity,
                            size_t alignment,
                            struct zb_buffer *buffer);

/**
 * Waits for a response until the timeout has passed. With `sequence` 0 it is the oldest one that
 * is there, and a timeout changes nothing. Otherwise it is the response to that request, which is
 * cancelled when the timeout passes, unless that is 0.
 */
zb_status zb_client_receive(const struct zb_client *client,
                            uint64_t sequence,
                            int64_t timeout_ns,
                            struct zb_view *response);

/**
 * Cancels a request: no response to it will be delivered. True if it was cancelled; false if its
 * response is there already, or if no such request is waiting.
 */
bool zb_client_cancel(const struct zb_client *client, uint64_t sequence);

/**
 * Attaches to the channel's present server: after the previous one has ended, or to start over. `report`, if
 * it is not null, gets what became of the requests in flight.
 *
 * Views and a buffer that are held have to be released, detached or abandoned before. With two buffers all
 * that was in flight is in doubt.
 *
 * Sequence numbers go on: one is one request's for the life of the client. With many threads nothing is
 * sent again, and a connection that works is left as it is: each thread may call this after an error,
 * whatever it holds.
 */
zb_status zb_client_reconnect(const struct zb_client *client,
                              int64_t timeout_ns,
                              struct zb_reconnected *report);

/**
 * Whether the server is there at this moment. Asks the operating system.
 */
bool zb_client_is_server_connected(const struct zb_client *client);

/**
 * Fills `state`, of which `size` is set.
 */
zb_status zb_client_inspect(const struct zb_client *client, struct zb_client_state *state);

/**
 * Copies what the server has published about itself into `buffer` of `capacity` bytes. `len` gets
 * the length of all of it, also if that is more than `capacity`, which is `ZB_TOO_LARGE` unless
 * `buffer` is null.
 */
zb_status zb_client_server_metadata(const struct zb_client *client,
                                    uint8_t *buffer,
                                    size_t capacity,
                                    size_t *len);

/**
 * Sends a copy of `len` bytes, and calls `done` with the response to it: never blocks, and no thread waits. For
 * clients with `ZB_THREADS_MANY` or `connections`, of channels in place and services.
 *
 * What cannot be sent at once, because the ring is full or another request is before it, is sent by a thread of the
 * library, in order. Waiting for room and for the response together are bounded by the timeout. Every call that was
 * started is told of exactly once (`zb_done`), also when the server ends, when the client is shut down or closed,
 * and when the call is cancelled; possibly before this returns. If this fails, the call was not started, and `done`
 * is not called.
 *
 * `call`, if it is not null, gets the number for `zb_client_cancel_call`.
 */
zb_status zb_client_call_async(const struct zb_client *client,
                               const uint8_t *data,
                               size_t len,
                               int64_t timeout_ns,
                               zb_done done,
                               void *context,
                               uint64_t *call);

/**
 * As `zb_client_call_async`, for callers to whom a few microseconds are no wait. If no other such call is under way,
 * it checks for the response for so long; one that comes at once needs no other thread. Then `response` gets it, and
 * `done` is not called. Otherwise `response` is empty, and all is as with that function. A client with
 * `connections` does not check.
 */
zb_status zb_client_try_call_async(const struct zb_client *client,
                                   const uint8_t *data,
                                   size_t len,
                                   int64_t timeout_ns,
                                   zb_done done,
                                   void *context,
                                   uint64_t *call,
                                   struct zb_view *response);

/**
 * As `zb_client_call_async`, but `fill` writes the request of `size` bytes where the server will read it, with
 * `capacity` and `alignment` as for `zb_client_acquire`. It is called with `context` before this returns, or later
 * on a thread of the library; again, if the request is sent on another connection; never once `done` was called.
 */
zb_status zb_client_call_async_with(const struct zb_client *client,
                                    size_t size,
                                    size_t capacity,
                                    size_t alignment,
                                    zb_fill fill,
                                    int64_t timeout_ns,
                                    zb_done done,
                                    void *context,
                                    uint64_t *call);

/**
 * Cancels a call that `zb_client_call_async` has started. True if it was cancelled: `done` gets `ZB_CANCELLED`,
 * before this returns, or soon after if the request is being sent at this moment. False if `done` is being called
 * with something else, or was. The server may be working on the request all the same.
 */
bool zb_client_cancel_call(const struct zb_client *client,
                           uint64_t call);

/**
 * Sends the first `buffer->len` bytes, and leaves the buffer empty. After an error that can be
 * repaired (`ZB_TOO_LARGE`: `len` beyond `capacity`) it stays open; after any other it is abandoned.
 *
 * `sequence`, if it is not null, gets the number of the request or frame.
 */
zb_status zb_buffer_commit(struct zb_buffer *buffer,
                           uint64_t *sequence);

/**
 * Gives the buffer up: nothing is sent. Leaves it empty; does nothing for an empty or null one.
 */
void zb_buffer_abandon(struct zb_buffer *buffer);

/**
 * Gives the bytes back, and leaves the view empty. Does nothing for an empty or null one.
 */
void zb_view_release(struct zb_view *view);

/**
 * Lets a view be released on any thread, and outlive its handle. Its bytes stay where they are.
 * From then on this connection counts with locked instructions, which costs some nanoseconds for
 * each request.
 */
zb_status zb_view_detach(struct zb_view *view);

/**
 * Creates the buffer `name`; writers can attach as soon as this returns. `config` may be null for
 * the defaults: 1 KiB of metadata and 1 MiB of payload. `reader` gets the handle, or null.
 */
zb_status zb_reader_create(const char *name,
                           const struct zb_reader_config *config,
                           struct zb_reader **reader);

/**
 * Ends the reader from any thread: each `zb_reader_read` that waits comes back at once, and it and
 * every later one fails with `ZB_CLOSED`. Once the threads have come back `zb_reader_close` frees it.
 * Null does nothing, nor does a second time.
 */
void zb_reader_shutdown(const struct zb_reader *reader);

/**
 * Removes the buffer and frees the reader. Views of it stay valid until they are released. Null
 * does nothing.
 */
void zb_reader_close(struct zb_reader *reader);

/**
 * The next frame, waiting for it until the timeout has passed; 0 looks once. `frame` gets it, or
 * is empty. What a writer had written before its end is delivered first.
 */
zb_status zb_reader_read(const struct zb_reader *reader, int64_t timeout_ns, struct zb_view *frame);

/**
 * Copies the writer's metadata into `buffer` of `capacity` bytes; see
 * `zb_client_server_metadata`. No bytes if the writer has set none: look after the first frame.
 */
zb_status zb_reader_metadata(const struct zb_reader *reader,
                             uint8_t *buffer,
                             size_t capacity,
                             size_t *len);

/**
 * Whether a live writer is attached at this moment.
 */
bool zb_reader_is_writer_connected(const struct zb_reader *reader);

/**
 * Attaches to the buffer `name`, waiting until the timeout has passed for it to be there and to
 * have no other writer; 0 tries once. `config` may be null for the defaults. `writer` gets the
 * handle, or null.
 */
zb_status zb_writer_connect(const char *name,
                            const struct zb_writer_config *config,
                            int64_t timeout_ns,
                            struct zb_writer **writer);

/**
 * Ends the writer from any thread, while another one is inside of its calls: a call that waits for
 * room comes back at once, and it and every later one fails with `ZB_CLOSED`. Once the thread has come
 * back `zb_writer_close` frees it. Null does nothing, nor does a second time.
 */
void zb_writer_shutdown(const struct zb_writer *writer);

/**
 * Gives the writer's role back and frees the writer. Frames that were written stay there to be read.
 * Null does nothing.
 *
 * An open buffer is abandoned; the writer stays until that is committed or
 * abandoned.
 */
void zb_writer_close(struct zb_writer *writer);

/**
 * Writes a copy of `len` bytes as one frame. `sequence`, if it is not null, gets its number.
 */
zb_status zb_writer_write(const struct zb_writer *writer,
                          const uint8_t *data,
                          size_t len,
                          uint64_t *sequence);

/**
 * A frame of `size` bytes to be filled in the ring. Nothing else can be written until it is
 * committed or abandoned.
 */
zb_status zb_writer_acquire(const struct zb_writer *writer, size_t size, struct zb_buffer *buffer);

/**
 * Describes the stream, once in the buffer's life; to be called before the first frame.
 */
zb_status zb_writer_set_metadata(const struct zb_writer *writer, const uint8_t *data, size_t len);

/**
 * How long writing waits for room from now on, instead of what the configuration said. Fails with
 * `ZB_CLAIM_OPEN` while a buffer is open.
 */
zb_status zb_writer_set_write_timeout(const struct zb_writer *writer, int64_t timeout_ns);

/**
 * The number that the next frame gets: 1, or the one after a previous writer's last. 0 while a buffer is
 * open.
 */
uint64_t zb_writer_next_sequence(const struct zb_writer *writer);

/**
 * Whether the reader is there at this moment, and the buffer's name still its own. False while a
 * buffer is open.
 */
bool zb_writer_is_reader_connected(const struct zb_writer *writer);

#ifdef __cplusplus
}  // extern "C"
#endif  // __cplusplus

#endif  /* ZEROBUFFER_C_H */
