#include "support.hpp"

#include <atomic>
#include <thread>
#include <vector>

TEST_CASE("a request is edited where it lies") {
    const std::string name = channel_name("place");
    zb::Server server = zb::Server::create(name, zb::BufferConfig(64, 1 << 16));
    std::atomic<const void *> seen = nullptr;
    server.start([&seen](zb::Frame &frame) {
        seen = frame.data();
        upper(frame);
    });
    CHECK(server.is_running());
    zb::Client client = zb::Client::connect(name, patience);
    CHECK(client.is_in_place());
    CHECK(client.is_server_connected());

    zb::RequestBuffer request = client.acquire_request_buffer(5);
    fill(request, "hello");
    const std::uint64_t sequence = request.commit();
    zb::Response response = client.receive_response_for(sequence, patience);
    CHECK(response.text() == "HELLO");
    CHECK(response.sequence() == sequence);
    const std::span<const std::uint8_t> whole = response;
    CHECK(whole.size() == 5);
    CHECK(client.in_flight() == 1);
    response.release();
    CHECK_FALSE(response);
    CHECK(client.in_flight() == 0);
    CHECK(seen != nullptr);
    CHECK(client.call(bytes("again"), patience).text() == "AGAIN");
    server.stop();
    CHECK_FALSE(server.is_running());
}

TEST_CASE("answers may be longer than requests, and data aligned, if that is asked for") {
    const std::string name = channel_name("room");
    zb::Server server = zb::Server::create(name, zb::BufferConfig(0, 1 << 16));
    server.start([](zb::Frame &frame) {
        frame.resize(frame.capacity());
        frame.data()[frame.size() - 1] = 7;
    });
    zb::Client client = zb::Client::connect(name, patience);
    zb::RequestBuffer request = client.acquire_request_buffer(1, 1000, 4096);
    CHECK(request.capacity() >= 1000);
    CHECK(reinterpret_cast<std::uintptr_t>(request.data()) % 4096 == 0);
    request.data()[0] = 'x';
    const std::uint64_t sequence = request.commit();
    const zb::Response response = client.receive_response_for(sequence, patience);
    REQUIRE(response.size() >= 1000);
    CHECK(response.data()[0] == 'x');
    CHECK(response.data()[500] == 0);
    CHECK(response.data()[response.size() - 1] == 7);
}

TEST_CASE("metadata goes both ways") {
    const std::string name = channel_name("metadata");
    zb::ServerConfig config{.buffer = {256, 1 << 16}, .metadata = "rgb24"};
    zb::Server server = zb::Server::create(name, config);
    server.start([](zb::Frame &frame) {
        const auto metadata = frame.metadata();
        frame.resize(metadata.size());
        std::copy(metadata.begin(), metadata.end(), frame.data());
    });
    zb::Client client = zb::Client::connect(name, patience, {.metadata = "from C++"});
    CHECK(client.server_metadata() == "rgb24");
    CHECK(client.call(bytes("room for it"), patience).text() == "from C++");
}

TEST_CASE("with several workers answers may overtake each other") {
    const std::string name = channel_name("workers");
    zb::Server server =
        zb::Server::create(name, zb::ServerConfig{.buffer = {0, 1 << 16}, .workers = 2});
    server.start([](zb::Frame &frame) {
        if (frame.text() == "slow") std::this_thread::sleep_for(300ms);
        upper(frame);
    });
    zb::Client client = zb::Client::connect(name, patience);
    const std::uint64_t slow = client.send_request(bytes("slow"));
    const std::uint64_t quick = client.send_request(bytes("quick"));
    const zb::Response first = client.receive_response(patience);
    CHECK(first.sequence() == quick);
    const zb::Response second = client.receive_response(patience);
    CHECK(second.sequence() == slow);
    CHECK(first.text() == "QUICK");
    CHECK(second.text() == "SLOW");
}

TEST_CASE("many threads share one client") {
    const std::string name = channel_name("shared");
    zb::Server server = zb::Server::create(name, zb::BufferConfig(0, 1 << 16));
    server.start(upper);
    zb::Client client = zb::Client::connect(name, patience, {.many_threads = true});
    std::vector<std::thread> threads;
    std::atomic<int> right = 0;
    for (int thread = 0; thread < 4; thread++)
        threads.emplace_back([&client, &right, thread] {
            for (int i = 0; i < 100; i++) {
                const std::string number = std::to_string(1000 * thread + i);
                right += client.call(bytes("n" + number), patience).text() == "N" + number;
            }
        });
    for (std::thread &thread : threads) thread.join();
    CHECK(right == 400);
    zb::RequestBuffer request = client.acquire_request_buffer(3);
    fill(request, "any");
    const std::uint64_t sequence = request.commit();
    CHECK(client.receive_response(patience).sequence() == sequence);
}

TEST_CASE("a server can take requests itself, and answer them in any order") {
    const std::string name = channel_name("pull");
    zb::Server server = zb::Server::create(name, zb::BufferConfig(0, 1 << 16));
    zb::Client client = zb::Client::connect(name, patience);
    for (const char *text : {"one", "two", "three"}) client.send_request(bytes(text));

    zb::Request one = server.receive(patience);
    CHECK_THROWS_AS(server.receive(0ns), zb::InvalidState);
    one.detach();
    zb::Request two = server.receive(patience);
    two.fail("no");
    CHECK_THROWS_AS(two.respond(), zb::InvalidState);
    std::thread([moved = std::move(one)]() mutable {
        moved.data()[0] = 'O';
        moved.respond();
    }).join();
    { const zb::Request three = server.receive(patience); }
    CHECK(server.try_receive(0ns).error().kind() == zb::ErrorKind::Timeout);

    CHECK(client.receive_response_for(1, patience).text() == "One");
    CHECK(client.try_receive_response_for(2, patience).error().detail() == "no");
    CHECK(client.try_receive_response_for(3, patience).error().handler_status() == 3);
}
