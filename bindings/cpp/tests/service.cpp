// Services: many clients of one server, and several servers of one name.

#include "support.hpp"

#include <array>
#include <atomic>
#include <cstdlib>
#include <filesystem>
#include <optional>
#include <stdexcept>
#include <string>
#include <thread>
#include <vector>

namespace {

/// A runtime directory of this test's own, which its services leave empty but for theirs.
class Directory {
public:
    Directory() {
        std::string made = "/tmp/zerobuffer-cpp-XXXXXX";
        if (mkdtemp(made.data()) == nullptr) throw std::runtime_error("no directory in /tmp");
        path = made;
    }
    ~Directory() { std::filesystem::remove_all(path); }

    std::string path;

    zb::ServiceConfig service() const { return {.ring_size = 1 << 16, .directory = path}; }
    zb::ClientConfig client(const std::string &label) const {
        return {.channel = zb::Channel::Service, .label = label, .directory = path};
    }
};

} // namespace

TEST_CASE("a service has many clients, and its handler sees who asks") {
    const Directory directory;
    const std::string name = channel_name("many");
    zb::ServiceConfig config = directory.service();
    config.metadata = "the server";
    zb::Service service = zb::Service::create(name, config);
    service.start([](zb::Frame &frame) {
        const auto client = frame.client().value();
        if (client.pid != static_cast<std::uint32_t>(getpid()) || client.uid != geteuid()) throw std::runtime_error("who?");
        frame.resize(client.label.size());
        std::copy(client.label.begin(), client.label.end(), frame.begin());
    });
    CHECK(service.is_running());
    CHECK_FALSE(service.is_client_connected());

    std::vector<std::thread> threads;
    std::atomic<int> right = 0;
    for (int number = 0; number < 4; number++)
        threads.emplace_back([&, number] {
            const std::string label = "camera " + std::to_string(number);
            zb::ClientConfig wanted = directory.client(label);
            wanted.many_threads = number % 2 == 1;
            zb::Client client = zb::Client::connect(name, patience, wanted);
            for (int i = 0; i < 50; i++) right += client.call("who am I?", patience).text() == label;
        });
    for (std::thread &thread : threads) thread.join();
    CHECK(right == 200);

    zb::ClientConfig wanted = directory.client("");
    wanted.ring_size = 1 << 17;
    const zb::Client client = zb::Client::connect(name, patience, wanted);
    CHECK(client.max_request_size() == (1 << 17) - 64);
    CHECK(client.server_metadata() == "the server");
    CHECK(service.is_client_connected());
    while (service.clients() != 1) std::this_thread::yield();
    service.stop();
    CHECK(service.clients() == 0);
    CHECK_FALSE(client.is_server_connected());
}

TEST_CASE("a service can take the requests of all clients itself") {
    const Directory directory;
    const std::string name = channel_name("service-pull");
    zb::Service service = zb::Service::create(name, directory.service());
    zb::Client one = zb::Client::connect(name, patience, directory.client("one"));
    zb::Client two = zb::Client::connect(name, patience, directory.client("two"));
    CHECK(service.clients() == 2);
    std::array<zb::Request, 2> requests;
    for (zb::Client *client : {&one, &two}) client->send_request("ping");
    for (zb::Request &request : requests) {
        request = service.receive(patience);
        request.detach();
    }
    CHECK(requests[0].client()->number != requests[1].client()->number);
    for (zb::Request &request : requests) {
        std::copy_n(request.client()->label.begin(), 3, request.begin());
        request.respond();
    }
    CHECK(one.receive_response(patience).text() == "oneg");
    CHECK(two.receive_response(patience).text() == "twog");
    CHECK(service.try_receive(0ns).error().kind() == zb::ErrorKind::Timeout);
}

TEST_CASE("a client of a service goes on with another server") {
    const Directory directory;
    const std::string name = channel_name("rolling");
    const auto serve = [&] {
        zb::Service service = zb::Service::create(name, directory.service());
        service.start(upper);
        return service;
    };
    std::optional<zb::Service> service = serve();
    zb::ClientConfig wanted = directory.client("");
    wanted.resend_not_started = true;
    zb::Client client = zb::Client::connect(name, patience, wanted);
    for (int round = 0; round < 5; round++) {
        zb::Service next = serve();
        service = std::move(next);
        CHECK(client.call("still there", patience).text() == "STILL THERE");
    }
}

TEST_CASE("a client that mends itself goes on over servers that stop, and says what it cannot do") {
    const Directory directory;
    const std::string name = channel_name("mends");
    const auto serve = [&] {
        zb::Service service = zb::Service::create(name, directory.service());
        service.start(upper);
        return service;
    };
    std::optional<zb::Service> first = serve(), second = serve();
    zb::ClientConfig wanted = directory.client("");
    wanted.connections = 2;
    zb::Client client = zb::Client::connect(name, patience, wanted);
    CHECK(first->clients() + second->clients() == 2);
    first.reset();
    CHECK(client.call("one is left", patience).text() == "ONE IS LEFT");
    second.reset();
    std::optional<zb::Service> third = serve();
    CHECK(client.call("still there", patience).text() == "STILL THERE");
    std::atomic<bool> done = false;
    client.start_call("and so is this", patience, [&](zb::Result<zb::Response> response) {
        CHECK(std::move(response).value().text() == "AND SO IS THIS");
        done = true;
    });
    while (!done) std::this_thread::yield();
    CHECK(client.is_server_connected());
    CHECK_THROWS_AS(client.send_request("not to one server"), zb::Unsupported);
    CHECK_THROWS_AS(client.acquire_request_buffer(8), zb::Unsupported);
    CHECK_FALSE(client.cancel(1));
    third.reset();
    CHECK_THROWS_AS(client.call("nobody", 1ms), zb::Error);
}

TEST_CASE("a service has its limits, and says them") {
    const Directory directory;
    const std::string name = channel_name("limits");
    zb::ServiceConfig config = directory.service();
    config.max_clients = 1;
    config.max_ring_size = 1 << 17;
    zb::Service service = zb::Service::create(name, config);
    zb::ClientConfig greedy = directory.client("");
    greedy.ring_size = 1 << 18;
    CHECK(zb::Client::try_connect(name, 0ns, greedy).error().allowed() == 1 << 17);
    const zb::Client client = zb::Client::connect(name, patience, directory.client(""));
    CHECK_THROWS_AS(zb::Client::connect(name, 0ns, directory.client("")), zb::Busy);
    CHECK_THROWS_AS(zb::Service::create(name, {.directory = directory.path, .listener = -1}), zb::SystemError);
    CHECK_THROWS_AS(zb::Service::create("not/a name", directory.service()), zb::BadName);
}

TEST_CASE("a channel's client has no identity, and a service ends by close, too") {
    const std::string name = channel_name("none");
    zb::Server server = zb::Server::create(name, zb::BufferConfig(0, 1 << 16));
    std::atomic<bool> none = false;
    server.start([&](zb::Frame &frame) { none = !frame.client().has_value(); });
    zb::Client::connect(name, patience).call("x", patience);
    CHECK(none);

    const Directory directory;
    zb::Service service = zb::Service::create(channel_name("closing"), directory.service());
    std::thread closing([&] { service.close(); });
    CHECK_THROWS_AS(service.receive(zb::forever), zb::Closed);
    closing.join();
}
