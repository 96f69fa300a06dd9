#include "support.hpp"

#include <stdexcept>
#include <string>

TEST_CASE("what a handler throws reaches the client") {
    const std::string name = channel_name("throws");
    zb::Server server = zb::Server::create(name, zb::BufferConfig(0, 1 << 16));
    server.start([](zb::Frame &frame) {
        if (frame.text() == "error in the handler") throw std::runtime_error("refused on request");
        if (frame.text() == "a number, not an exception") throw 42;
        upper(frame);
    });
    zb::Client client = zb::Client::connect(name, patience);
    try {
        client.call(bytes("error in the handler"), patience);
        FAIL("nothing was thrown");
    } catch (const zb::HandlerFailed &error) {
        CHECK(error.kind() == zb::ErrorKind::HandlerFailed);
        CHECK(error.sequence() == 1);
        CHECK(error.handler_status() == 1);
        CHECK(error.detail() == "refused on request");
        CHECK(std::string(error.what()).find("refused on request") != std::string::npos);
    }
    CHECK_THROWS_AS(client.call(bytes("a number, not an exception"), patience), zb::HandlerFailed);
    CHECK(client.call(bytes("fine"), patience).text() == "FINE");
}

TEST_CASE("every failure is an Error with facts, and of its own class") {
    const std::string name = channel_name("facts");
    CHECK_THROWS_AS(zb::Client::connect(name, 0ns), zb::NotRunning);
    CHECK_THROWS_AS(zb::Server::create("no/slash"), zb::BadName);
    zb::Server server = zb::Server::create(name, zb::BufferConfig(0, 4096));
    CHECK_THROWS_AS(zb::Server::create(name), zb::AlreadyRunning);
    zb::Client client = zb::Client::connect(name, patience, {.send_timeout = 0ns});
    CHECK_THROWS_AS(zb::Client::connect(name, 0ns), zb::Busy);

    const std::string long_text(5000, 'x');
    try {
        client.send_request(bytes(long_text));
        FAIL("nothing was thrown");
    } catch (const zb::Error &error) {
        CHECK(error.kind() == zb::ErrorKind::TooLarge);
        CHECK(error.asked() == 5000);
        CHECK(error.allowed() < 4096);
    }
    zb::RequestBuffer open = client.acquire_request_buffer(10);
    CHECK_THROWS_AS(client.acquire_request_buffer(10), zb::ClaimOpen);
    open.resize(open.capacity() + 1);
    CHECK_THROWS_AS(open.commit(), zb::TooLarge);
    open.resize(3);
    CHECK(open.commit() == 1);
    CHECK_THROWS_AS(open.commit(), zb::InvalidState);
    CHECK_THROWS_AS(client.receive_response(1ms), zb::Timeout);
    CHECK_THROWS_AS(client.receive_response_for(77, 0ns), zb::UnknownSequence);
    CHECK(client.cancel(1));
    CHECK_FALSE(client.cancel(1));
    try {
        for (int i = 0; i < 100; i++) client.send_request(bytes("never answered"));
        FAIL("nothing was thrown");
    } catch (const zb::Full &error) {
        CHECK(error.asked() > error.allowed());
        CHECK(error.in_flight() > 0);
    }
    server.stop();
    CHECK_THROWS_AS(client.receive_response(patience), zb::PeerGone);
}

TEST_CASE("a program without exceptions gets a result") {
    const std::string name = channel_name("results");
    const auto refused = zb::Client::try_connect(name, 0ns);
    REQUIRE_FALSE(refused);
    CHECK(refused.error().kind() == zb::ErrorKind::NotRunning);
    CHECK(refused.error().subject() == name);
    CHECK_THROWS_AS(zb::Client::try_connect(name, 0ns).value(), zb::NotRunning);

    zb::Server server = zb::Server::create(name, zb::BufferConfig(0, 1 << 16));
    server.start(upper);
    zb::Client client = *zb::Client::try_connect(name, patience);
    auto answer = client.try_call(bytes("hello"), patience);
    REQUIRE(answer);
    CHECK(answer->text() == "HELLO");
    auto sent = client.try_send_request(bytes("one"));
    REQUIRE(sent);
    CHECK(client.try_receive_response_for(*sent, patience)->text() == "ONE");
    auto request = client.try_acquire_request_buffer(3);
    REQUIRE(request);
    fill(*request, "two");
    CHECK(request->try_commit());
    CHECK(request->try_commit().error().kind() == zb::ErrorKind::InvalidState);
    CHECK(client.try_receive_response(patience)->text() == "TWO");
    CHECK(client.try_receive_response(0ns).error().kind() == zb::ErrorKind::Timeout);
}
