// Calls with callbacks, for the page about C++.

#include <zerobuffer/zerobuffer.hpp>

#include <condition_variable>
#include <cstdio>
#include <mutex>
#include <string>
#include <vector>

using namespace std::chrono_literals;

static void log(const char *text) { std::puts(text); }

/// As good a queue as any.
struct Responses {
    std::mutex mutex;
    std::condition_variable more;
    std::vector<zerobuffer::Response> waiting;

    void push(zerobuffer::Response response) {
        const std::lock_guard lock(mutex);
        waiting.push_back(std::move(response));
        more.notify_one();
    }

    /// Takes all that there are, and releases them.
    std::size_t take() {
        std::unique_lock lock(mutex);
        more.wait(lock, [&] { return !waiting.empty(); });
        const std::size_t count = waiting.size();
        waiting.clear();
        return count;
    }
};

int main() {
    auto server = zerobuffer::Server::create("cpp-callbacks", zerobuffer::BufferConfig(0, 1 << 14));
    server.start([](zerobuffer::Frame &) {});
    Responses responses;
    auto client = zerobuffer::Client::connect("cpp-callbacks", 5s, {.many_threads = true});
SNIPPET
    std::size_t taken = 0;
    while (taken < 1000) taken += responses.take();
}
