// A coroutine that awaits calls, for the page about C++; with the least task that one can wait for.

#include <zerobuffer/zerobuffer.hpp>

#include <coroutine>
#include <exception>
#include <future>
#include <string>

using namespace std::chrono_literals;

template <class T>
struct Task {
    struct promise_type {
        std::promise<T> result;

        Task get_return_object() { return {result.get_future()}; }
        std::suspend_never initial_suspend() noexcept { return {}; }
        std::suspend_never final_suspend() noexcept { return {}; }
        void return_value(T value) { result.set_value(value); }
        void unhandled_exception() { result.set_exception(std::current_exception()); }
    };

    std::future<T> result;
};

SNIPPET

int main() {
    auto server = zerobuffer::Server::create("cpp-awaiting", zerobuffer::BufferConfig(0, 4096));
    server.start([](zerobuffer::Frame &) {});
    auto client = zerobuffer::Client::connect("cpp-awaiting", 5s, {.many_threads = true});
    return total(client).result.get() == 90 ? 0 : 1;
}
