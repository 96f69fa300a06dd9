// A loop that looks for responses, for the page about C++.

#include <zerobuffer/zerobuffer.hpp>

using namespace std::chrono_literals;

static bool used = false;

static void use(const zerobuffer::Response &response) { used = response.text() == "tick"; }

int main() {
    auto server = zerobuffer::Server::create("cpp-results", zerobuffer::BufferConfig(0, 4096));
    server.start([](zerobuffer::Frame &) {});
    auto client = zerobuffer::Client::connect("cpp-results", 5s);
    client.send_request("tick");
    while (!used) {
SNIPPET
    }
}
