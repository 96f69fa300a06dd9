// Objects that end while they are used, or by whom nobody expects it.

#include "support.hpp"

#include <atomic>
#include <functional>
#include <optional>
#include <thread>
#include <vector>

/// Runs `wait` on so many threads, closes once all of them have begun, and says how many ended as closed.
static int closed_while(const std::function<void()> &close, int count, const std::function<void()> &wait) {
    std::atomic<int> begun = 0, closed = 0;
    std::vector<std::thread> threads;
    for (int number = 0; number < count; number++)
        threads.emplace_back([&] {
            begun++;
            try {
                wait();
            } catch (const zb::Closed &) {
                closed++;
            }
        });
    while (begun < count) std::this_thread::yield();
    // Most likely asleep by then; not to be asleep yet must be just as well.
    std::this_thread::sleep_for(5ms);
    close();
    for (std::thread &thread : threads) thread.join();
    return closed;
}

TEST_CASE("closing a client ends the waits of all threads in it") {
    const std::string name = channel_name("close-client");
    for (const bool many : {false, true}) {
        // Nobody serves: no response comes.
        std::optional<zb::Server> server = zb::Server::create(name, zb::BufferConfig(0, 1 << 16));
        const int count = many ? 3 : 1;
        const auto config = zb::ClientConfig{.many_threads = many};
        std::optional<zb::Client> client = zb::Client::connect(name, patience, config);
        const auto close = [&] { client->close(); };
        CHECK(closed_while(close, count, [&] { client->call("never answered", zb::forever); }) == count);
        CHECK_THROWS_AS(client->call("text", zb::forever), zb::Closed);
        CHECK_THROWS_AS(client->reconnect(zb::forever), zb::Closed);
        CHECK(client->try_receive_response(zb::forever).error().kind() == zb::ErrorKind::Closed);
        CHECK_FALSE(client->is_server_connected());
        client->close();
        client.reset();
        server.reset();
        server = zb::Server::create(name, zb::BufferConfig(0, 1 << 16));
        client = zb::Client::connect(name, patience, config);
        CHECK(closed_while(close, count, [&] { client->receive_response(zb::forever); }) == count);
    }
}

TEST_CASE("closing a client ends threads that are busy with it") {
    const std::string name = channel_name("close-busy");
    zb::Server server = zb::Server::create(name, zb::BufferConfig(0, 1 << 16));
    server.start(upper);
    for (int round = 0; round < 20; round++) {
        zb::Client client = zb::Client::connect(name, patience, {.many_threads = true});
        const auto call = [&client] {
            for (;;) client.call("text", zb::forever);
        };
        CHECK(closed_while([&] { client.close(); }, 4, call) == 4);
    }
}

TEST_CASE("closing a server, a reader or a writer ends the waits in it") {
    const std::string name = channel_name("close-others");
    zb::Server server = zb::Server::create(name, zb::BufferConfig(0, 1 << 16));
    CHECK(closed_while([&] { server.close(); }, 1, [&] { server.receive(zb::forever); }) == 1);
    CHECK_THROWS_AS(server.receive(zb::forever), zb::Closed);

    zb::v1::Reader reader = zb::v1::Reader::create(name, zb::BufferConfig(0, 256));
    zb::v1::Writer writer = zb::v1::Writer::connect(name, patience, {.write_timeout = zb::forever});
    const auto write = [&] {
        for (;;) writer.write_frame("text");
    };
    CHECK(closed_while([&] { writer.close(); }, 1, write) == 1);
    CHECK_THROWS_AS(writer.write_frame("text"), zb::Closed);

    zb::v1::Reader waiting = zb::v1::Reader::create(name + "-2", zb::BufferConfig(0, 256));
    CHECK(closed_while([&] { waiting.close(); }, 2, [&] { waiting.read_frame(zb::forever); }) == 2);
    CHECK_THROWS_AS(waiting.read_frame(zb::forever), zb::Closed);
}

template <class Server>
static void end_by_a_handler(const std::string &name) {
    for (const bool destroy : {false, true}) {
        // Its end would take an hour if it waited for that handler.
        const auto config = zb::ServerConfig{.buffer = {256, 1 << 16}, .stop_timeout = 1h};
        std::optional<Server> server = Server::create(name, config);
        std::atomic<bool> ended = false;
        server->start([&](zb::Frame &frame) {
            if (destroy)
                server.reset();
            else
                server->stop();
            upper(frame);
            ended = true;
        });
        zb::Client client = zb::Client::connect(name, patience);
        // The end does not wait for the handler that asks for it: the client may hear of the end first.
        const auto response = client.try_call("the last one", patience);
        if (response)
            CHECK(response->text() == "THE LAST ONE");
        else
            CHECK(response.error().request_state() == zb::RequestState::InDoubt);
        while (!ended) std::this_thread::yield();
        CHECK_THROWS_AS(client.call("text", patience), zb::PeerClosed);
    }
}

TEST_CASE("a handler may end its own server") {
    end_by_a_handler<zb::Server>(channel_name("own"));
    end_by_a_handler<zb::MutableDuplexServer>(channel_name("own-two"));
}

TEST_CASE("objects may end with their thread, after the thread's own things of the library") {
    const std::string name = channel_name("thread-local");
    zb::Server server = zb::Server::create(name, zb::BufferConfig(0, 1 << 16));
    // ThreadSanitizer does not see how the response orders the two threads, unless one of them has slept.
    std::atomic<int> edited = 0;
    server.start([&](zb::Frame &frame) {
        upper(frame);
        edited++;
    });
    std::thread([&name] {
        thread_local std::optional<zb::Client> client;
        thread_local std::optional<zb::Response> held;
        client = zb::Client::connect(name, patience);
        held = client->call("text", patience);
        CHECK_THROWS_AS(client->receive_response(0ns), zb::Timeout);
    }).join();
    const auto response = zb::Client::connect(name, patience).call("text", patience);
    CHECK(edited == 2);
    CHECK(response.text() == "TEXT");
}
