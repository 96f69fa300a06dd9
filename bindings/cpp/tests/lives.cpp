#include "support.hpp"

#include <memory>
#include <optional>
#include <thread>
#include <tuple>
#include <type_traits>
#include <utility>

static_assert(!std::is_copy_constructible_v<zb::View> && std::is_nothrow_move_constructible_v<zb::View>);
static_assert(!std::is_copy_constructible_v<zb::Buffer> && !std::is_copy_constructible_v<zb::Frame>);
static_assert(!std::is_copy_constructible_v<zb::Client> && std::is_nothrow_move_constructible_v<zb::Client>);

TEST_CASE("guards move, and what was moved from holds nothing") {
    const std::string name = channel_name("moves");
    zb::Server server = zb::Server::create(name, zb::BufferConfig(0, 1 << 16));
    server.start(upper);
    zb::Client client = zb::Client::connect(name, patience);
    zb::Response first = client.call(bytes("first"), patience);
    zb::Response second = client.call(bytes("second"), patience);
    CHECK(first.text() == "FIRST");
    first = std::move(second);
    CHECK(first.text() == "SECOND");
    CHECK_FALSE(second);
    CHECK(client.in_flight() == 1);
    zb::RequestBuffer abandoned = client.acquire_request_buffer(1);
    abandoned = zb::RequestBuffer();
    CHECK(client.acquire_request_buffer(1).commit() == 3);
}

TEST_CASE("an answer may outlive its client, and a detached one its thread") {
    const std::string name = channel_name("outlives");
    zb::Server server = zb::Server::create(name, zb::BufferConfig(0, 1 << 16));
    server.start(upper);
    zb::Response kept, detached;
    {
        zb::Client client = zb::Client::connect(name, patience);
        kept = client.call(bytes("kept"), patience);
        detached = client.call(bytes("detached"), patience);
        detached.detach();
    }
    CHECK(kept.text() == "KEPT");
    kept.release();
    std::thread([moved = std::move(detached)] { CHECK(moved.text() == "DETACHED"); }).join();
    // The client's end has been noticed, and another one is served.
    zb::Client next = zb::Client::connect(name, patience);
    CHECK(next.call(bytes("next"), patience).text() == "NEXT");
}

TEST_CASE("guards may outlive what they came from") {
    const std::string name = channel_name("order");
    zb::Request request;
    zb::RequestBuffer buffer;
    zb::v1::FrameBuffer frame;
    {
        zb::Server server = zb::Server::create(name, zb::BufferConfig(0, 1 << 16));
        zb::Client client = zb::Client::connect(name, patience);
        client.send_request(bytes("never answered"));
        request = server.receive(patience);
        buffer = client.acquire_request_buffer(10);
        zb::v1::Reader reader = zb::v1::Reader::create(name + "-v1", zb::BufferConfig(0, 4096));
        zb::v1::Writer writer = zb::v1::Writer::connect(name + "-v1", patience);
        frame = writer.acquire(10);
    }
    // What they lie in is mapped for as long as they live.
    std::fill(request.begin(), request.end(), std::uint8_t{'r'});
    std::fill(buffer.begin(), buffer.end(), std::uint8_t{'b'});
    std::fill(frame.begin(), frame.end(), std::uint8_t{'f'});
    CHECK_THROWS_AS(request.respond(), zb::InvalidState);
    CHECK_THROWS_AS(buffer.commit(), zb::InvalidState);
    frame.abandon();
    // Nothing of them is in anybody's way.
    zb::Server::create(name, zb::BufferConfig(0, 1 << 16));
}

TEST_CASE("a handler lives as long as it is needed, and no longer") {
    const std::string name = channel_name("handler");
    auto used = std::make_shared<int>(1);
    zb::Server server = zb::Server::create(name, zb::BufferConfig(0, 1 << 16));
    server.start([used](zb::Frame &) {});
    CHECK(used.use_count() == 2);
    CHECK_THROWS_AS(server.start([used](zb::Frame &) {}), zb::InvalidState);
    CHECK(used.use_count() == 2);
    server.stop();
    CHECK(used.use_count() == 1);
}

TEST_CASE("a server that is destroyed tells its client") {
    const std::string name = channel_name("destroyed");
    std::optional<zb::Server> server = zb::Server::create(name, zb::BufferConfig(0, 1 << 16));
    server->start(upper);
    zb::Client client = zb::Client::connect(name, patience);
    client.call(bytes("hello"), patience);
    server.reset();
    CHECK_THROWS_AS(client.call(bytes("hello"), patience), zb::PeerClosed);
    CHECK_FALSE(client.is_server_connected());
    zb::Server successor = zb::Server::create(name, zb::BufferConfig(0, 1 << 16));
    successor.start(upper);
    CHECK(client.reconnect(patience).lost.empty());
    CHECK(client.call(bytes("hello"), patience).text() == "HELLO");
}

TEST_CASE("what was moved from refuses every call and takes none as done") {
    const std::string name = channel_name("empty");
    zb::Server server = zb::Server::create(name, zb::BufferConfig(0, 1 << 16));
    zb::Client client = zb::Client::connect(name, patience);
    zb::v1::Reader reader = zb::v1::Reader::create(name + "-v1", zb::BufferConfig(0, 4096));
    zb::v1::Writer writer = zb::v1::Writer::connect(name + "-v1", patience);
    const auto kept = std::make_tuple(std::move(server), std::move(client), std::move(reader), std::move(writer));

    auto used = std::make_shared<int>(1);
    CHECK_THROWS_AS(server.start([used](zb::Frame &) {}), zb::BadConfig);
    CHECK(used.use_count() == 1);
    CHECK_THROWS_AS(server.receive(0ns), zb::BadConfig);
    CHECK_THROWS_AS(server.stop(), zb::BadConfig);
    CHECK_FALSE(server.is_running());
    CHECK_THROWS_AS(client.call("text", 0ns), zb::BadConfig);
    CHECK_THROWS_AS(client.acquire_request_buffer(1), zb::BadConfig);
    CHECK_THROWS_AS(client.receive_response(0ns), zb::BadConfig);
    CHECK_THROWS_AS(client.reconnect(0ns), zb::BadConfig);
    CHECK_THROWS_AS(client.in_flight(), zb::BadConfig);
    CHECK_THROWS_AS(client.server_metadata(), zb::BadConfig);
    CHECK_FALSE(client.cancel(1));
    CHECK_FALSE(client.is_server_connected());
    CHECK_THROWS_AS(reader.read_frame(0ns), zb::BadConfig);
    CHECK_THROWS_AS(reader.metadata(), zb::BadConfig);
    CHECK_THROWS_AS(writer.write_frame("text"), zb::BadConfig);
    CHECK_THROWS_AS(writer.acquire(1), zb::BadConfig);
    CHECK_FALSE(writer.is_reader_connected());
    CHECK(std::get<0>(kept).is_client_connected());
}
