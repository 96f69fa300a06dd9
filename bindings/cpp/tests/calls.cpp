#include "support.hpp"

#include <atomic>
#include <coroutine>
#include <exception>
#include <memory>
#include <semaphore>
#include <thread>
#include <vector>

namespace {

/// A coroutine that nobody awaits: it runs until it is done, on whatever thread goes on with it.
struct Detached {
    struct promise_type {
        Detached get_return_object() const { return {}; }
        std::suspend_never initial_suspend() const noexcept { return {}; }
        std::suspend_never final_suspend() const noexcept { return {}; }
        void return_void() const {}
        void unhandled_exception() const { std::terminate(); }
    };
};

zb::Client shared_client(const std::string &name) {
    return zb::Client::connect(name, patience, {.many_threads = true});
}

Detached call_in_turn(zb::Client &client, int times, std::binary_semaphore &done) {
    for (int i = 0; i < times; i++) {
        const zb::Response response = co_await client.call_async("hello " + std::to_string(i), patience);
        CHECK(response.text() == "HELLO " + std::to_string(i));
    }
    done.release();
}

Detached call_once(zb::Client &client, int number, std::counting_semaphore<> &done) {
    const zb::Response response = co_await client.call_async(std::to_string(number), patience);
    if (response.text() == std::to_string(number)) done.release();
}

Detached fail(zb::Client &client, std::string &said, std::binary_semaphore &done) {
    try {
        co_await client.call_async("fail", patience);
    } catch (const zb::HandlerFailed &error) {
        said = error.detail();
    }
    done.release();
}

} // namespace

TEST_CASE("coroutines await their responses, one after the other and a thousand at a time") {
    const std::string name = channel_name("await");
    zb::Server server = zb::Server::create(name, zb::BufferConfig(0, 1 << 14));
    server.start([](zb::Frame &frame) {
        if (frame.text() == "fail") throw std::runtime_error("no");
        upper(frame);
    });
    zb::Client client = shared_client(name);
    std::binary_semaphore done(0);
    call_in_turn(client, 100, done);
    CHECK(done.try_acquire_for(patience));

    std::counting_semaphore<> each(0);
    for (int i = 0; i < 1000; i++) call_once(client, i, each);
    for (int i = 0; i < 1000; i++) REQUIRE(each.try_acquire_for(patience));

    std::string said;
    fail(client, said, done);
    CHECK(done.try_acquire_for(patience));
    CHECK(said == "no");
}

TEST_CASE("a call that cannot be started fails where it is awaited") {
    const std::string name = channel_name("await-one");
    zb::Server server = zb::Server::create(name);
    zb::Client client = zb::Client::connect(name, patience);
    bool thrown = false;
    [](zb::Client &client, bool &thrown) -> Detached {
        try {
            co_await client.call_async("x", patience);
        } catch (const zb::Unsupported &) {
            thrown = true;
        }
    }(client, thrown);
    CHECK(thrown);
    auto never = [](zb::Result<zb::Response>) { std::terminate(); };
    CHECK_THROWS_AS(client.start_call("x", patience, never), zb::Unsupported);
}

TEST_CASE("a callback is told once: of a response, of a cancellation, of the client's end") {
    const std::string name = channel_name("callback");
    zb::Server server = zb::Server::create(name, zb::BufferConfig(0, 1 << 14));
    std::counting_semaphore<> done(0);
    std::vector<zb::ErrorKind> ends;
    auto note = [&](zb::Result<zb::Response> outcome) {
        ends.push_back(outcome ? zb::ErrorKind{} : outcome.error().kind());
        done.release();
    };
    {
        zb::Client client = shared_client(name);
        auto moved = std::make_unique<int>(7);
        client.start_call("one", patience, [&, moved = std::move(moved)](zb::Result<zb::Response> outcome) {
            if (outcome && outcome->text() == "ONE" && *moved == 7) done.release();
        });
        zb::Request request = server.receive(patience);
        for (std::uint8_t &byte : request) byte = static_cast<std::uint8_t>(byte - 32);
        request.respond();
        REQUIRE(done.try_acquire_for(patience));

        const std::uint64_t call = client.start_call("two", patience, note);
        CHECK(client.cancel_call(call));
        REQUIRE(done.try_acquire_for(patience));
        CHECK_FALSE(client.cancel_call(call));
        client.start_call("three", zb::forever, note);
    }
    CHECK(done.try_acquire());
    CHECK(ends == std::vector{zb::ErrorKind::Cancelled, zb::ErrorKind::Closed});
}
