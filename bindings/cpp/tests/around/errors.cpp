// A call that fails, for the page about C++.

#include <zerobuffer/zerobuffer.hpp>

#include <optional>
#include <stdexcept>
#include <string>

using namespace std::chrono_literals;

static std::string handled;

static void log(const std::string &text) { handled = text; }

static void failing(zerobuffer::Client &client) {
    const std::string data = "data";
SNIPPET
}

int main() {
    std::optional server = zerobuffer::Server::create("cpp-errors", zerobuffer::BufferConfig(0, 4096));
    server->start([](zerobuffer::Frame &) { throw std::runtime_error("no"); });
    auto client = zerobuffer::Client::connect("cpp-errors", 5s);
    failing(client);
    if (handled != "no") return 1;
    server.reset();
    server = zerobuffer::Server::create("cpp-errors", zerobuffer::BufferConfig(0, 4096));
    server->start([](zerobuffer::Frame &) {});
    failing(client);
    return handled == "reconnected" ? 0 : 2;
}
