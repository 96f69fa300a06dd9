// A picture is inverted in another process, where it lies.
//
//   invert serve NAME        serves until standard input ends
//   invert call NAME         sends a picture, and says what came back

#include <zerobuffer/zerobuffer.hpp>

#include <algorithm>
#include <chrono>
#include <cstdint>
#include <iostream>
#include <string>

using namespace std::chrono_literals;

constexpr std::size_t picture = 1920 * 1080 * 3;

static int serve(const std::string &name) {
    auto service = zerobuffer::Service::create(name, {.ring_size = 32 << 20, .workers = 2});
    service.start([](zerobuffer::Frame &frame) {
        for (std::uint8_t &byte : frame) byte = static_cast<std::uint8_t>(~byte);
    });
    std::cout << "serving" << std::endl;
    for (std::string line; std::getline(std::cin, line);) continue;
    service.stop();
    return 0;
}

static int call(const std::string &name) {
    auto client = zerobuffer::Client::connect(name, 5s);
    auto request = client.acquire_request_buffer(picture);
    std::fill(request.begin(), request.end(), std::uint8_t{200}); // where the server will edit it
    const auto sequence = request.commit();
    const auto response = client.receive_response_for(sequence, 1s);
    const bool right = std::ranges::all_of(response, [](std::uint8_t byte) { return byte == 55; });
    std::cout << (right ? "inverted" : "wrong") << std::endl;
    return right ? 0 : 1;
}

int main(int count, char **arguments) {
    const std::string role = count == 3 ? arguments[1] : "";
    try {
        if (role == "serve") return serve(arguments[2]);
        if (role == "call") return call(arguments[2]);
        std::cerr << "usage: invert serve|call NAME\n";
    } catch (const zerobuffer::Error &error) {
        std::cerr << error.what() << '\n';
    }
    return 2;
}
