/// The server: a handler that does as byte 0 of the request says.

#include "peer.hpp"

#include <algorithm>
#include <chrono>
#include <thread>

using namespace std::chrono_literals;
using zerobuffer::Frame;

static void handle(Frame &frame) {
    const std::span<std::uint8_t> data(frame.data(), frame.size());
    switch (data.empty() ? '\0' : static_cast<char>(data[0])) {
    case 'T': return transform(data);
    case 'F': throw Failure("refused on request");
    case 'S': std::this_thread::sleep_for(200ms); return transform(data);
    case 'M': {
        const auto metadata = frame.metadata();
        frame.resize(metadata.size());
        std::copy(metadata.begin(), metadata.end(), frame.data());
        return;
    }
    case 'H':
        transform(data.first(data.size() / 2));
        say("hanging");
        return std::this_thread::sleep_for(60s);
    default: throw Failure("no such request");
    }
}

static zerobuffer::Service make_service(const Options &options) {
    const zerobuffer::ServiceConfig config{
        .ring_size = options.payload,
        .metadata_size = options.metadata,
        .wait = options.wait,
        .workers = options.workers,
        .metadata = options.server_metadata,
    };
    return zerobuffer::Service::create(options.channel, config);
}

void serve(const Options &options) {
    const zerobuffer::ServerConfig config{
        .buffer = {options.metadata, options.payload},
        .wait = options.wait,
        .workers = options.in_place ? options.workers : 1,
        .metadata = options.in_place ? options.server_metadata : std::string(),
    };
    const auto run = [](auto server) {
        // A closure's type says which function it is: the library's call reaches that without a pointer.
        server.start([](Frame &frame) { handle(frame); });
        say("ready");
        until_told();
        server.stop();
    };
    if (options.service) run(make_service(options));
    else if (options.in_place) run(zerobuffer::Server::create(options.channel, config));
    else run(zerobuffer::MutableDuplexServer::create(options.channel, config));
}
