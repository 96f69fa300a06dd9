// Round trips whose two ends take turns on one thread: nobody waits, so that `cargo xtask hot-path` can
// count the instructions of one.

#include <zerobuffer/zerobuffer.hpp>

#include <array>
#include <bit>
#include <chrono>
#include <cstdint>
#include <cstdio>
#include <exception>
#include <string>
#include <unistd.h>

using namespace std::chrono_literals;

using Message = std::array<std::uint8_t, 8>;

static bool steps(std::uint64_t count) {
    const std::string name = "cpp-step-" + std::to_string(getpid());
    constexpr auto spin = zerobuffer::WaitStrategy::Spin;
    auto server = zerobuffer::Server::create(name, {.buffer = {0, 1 << 16}, .wait = spin});
    auto client = zerobuffer::Client::connect(name, 10s, {.wait = spin});
    for (std::uint64_t number = 0; number < count; number++) {
        const auto sequence = client.send_request(std::bit_cast<Message>(number));
        auto request = server.receive(10s);
        request.data()[7] = 1;
        request.respond();
        const auto response = client.receive_response_for(sequence, 10s);
        if (response.size() != 8 || response.data()[7] != 1) return false;
    }
    return true;
}

int main(int, char **arguments) {
    try {
        return steps(std::stoull(arguments[1])) ? 0 : 1;
    } catch (const std::exception &error) {
        std::fprintf(stderr, "%s\n", error.what());
        return 1;
    }
}
