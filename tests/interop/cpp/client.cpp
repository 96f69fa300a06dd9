/// The client: one case, and whether it held.

#include "peer.hpp"

#include <algorithm>
#include <array>
#include <bit>
#include <chrono>
#include <cstdio>
#include <cstring>
#include <initializer_list>
#include <utility>

using namespace std::chrono_literals;
using zerobuffer::Client, zerobuffer::Response;

namespace {

/// For a call, far beyond what any of them takes.
constexpr auto patience = 20s;
constexpr auto connect_time = 10s;

void ensure(bool holds, const std::string &otherwise) {
    if (!holds) throw Failure(otherwise);
}

/// Requests of one size, and their answers: windows of the same bytes, each a byte further on.
class Contents {
public:
    explicit Contents(std::size_t size) : size_(size), sent_(size + rounds), answered_(size + rounds) {
        std::uint32_t state = 0x9e3779b9;
        for (std::size_t i = 0; i < sent_.size(); i++) {
            state = state * 1664525 + 1013904223;
            sent_[i] = static_cast<std::uint8_t>(state >> 24);
            answered_[i] = static_cast<std::uint8_t>(~sent_[i]);
        }
    }

    std::uint64_t send(Client &client, char op, std::size_t round) const {
        auto request = client.acquire_request_buffer(size_);
        std::memcpy(request.data(), &sent_[round % rounds], size_);
        request.data()[0] = static_cast<std::uint8_t>(op);
        return request.commit();
    }

    void check(std::size_t round, const Response &response) const {
        ensure(response.size() == size_, "the answer has " + std::to_string(response.size()) + " bytes");
        const std::uint8_t *expected = &answered_[round % rounds];
        const bool right = response.data()[0] == 't' &&
                           std::memcmp(response.data() + 1, expected + 1, size_ - 1) == 0;
        ensure(right, "the answer of round " + std::to_string(round) + " has wrong bytes");
    }

private:
    static constexpr std::size_t rounds = 4096;

    std::size_t size_;
    std::vector<std::uint8_t> sent_, answered_;
};

zerobuffer::Channel kind(const Options &options) {
    using zerobuffer::Channel;
    if (options.service) return Channel::Service;
    return options.in_place ? Channel::InPlace : Channel::TwoBuffers;
}

Client connect(const Options &options) {
    return Client::connect(
        options.channel, connect_time,
        {.channel = kind(options),
         .wait = options.wait,
         .metadata = options.client_metadata,
         .response_buffer = {4096, 16 << 20}});
}

void roundtrips(Client &client, std::size_t size, std::size_t count) {
    const Contents contents(size);
    for (std::size_t round = 0; round < count; round++) {
        const auto sequence = contents.send(client, 'T', round);
        contents.check(round, client.receive_response_for(sequence, patience));
    }
}

void out_of_order(Client &client) {
    const Contents contents(100);
    const auto slow = contents.send(client, 'S', 0);
    const auto quick = contents.send(client, 'T', 1);
    using Expected = std::pair<std::uint64_t, std::size_t>;
    for (const auto &[sequence, round] : {Expected(quick, 1), Expected(slow, 0)}) {
        const Response response = client.receive_response(patience);
        ensure(response.sequence() == sequence, "an answer came before its turn");
        contents.check(round, response);
    }
}

void failure(Client client, const Options &options) {
    const Contents contents(100);
    const auto refused = contents.send(client, 'F', 0);
    const auto answer = client.try_receive_response_for(refused, patience);
    ensure(!answer, "there is an answer instead of a failure");
    const zerobuffer::Error &error = answer.error();
    if (!client.is_in_place()) {
        ensure(error.kind() == zerobuffer::ErrorKind::PeerClosed, error.what());
        { const Client ended = std::move(client); }
        Client next = connect(options);
        return roundtrips(next, 100, 1);
    }
    ensure(error.kind() == zerobuffer::ErrorKind::HandlerFailed, error.what());
    ensure(error.sequence() == refused && error.handler_status() == 1, error.what());
    ensure(error.detail() == "refused on request", "the message is " + error.detail());
    roundtrips(client, 100, 1);
}

void killed(Client &client) {
    const auto sequence = Contents(100'000).send(client, 'H', 0);
    try {
        client.receive_response_for(sequence, patience);
    } catch (const zerobuffer::PeerDied &error) {
        ensure(error.sequence() == sequence, "another request is said to be lost");
        ensure(error.request_state() == zerobuffer::RequestState::InDoubt, error.what());
        return;
    }
    throw Failure("there is an answer instead of the server's death");
}

void hold(Client &client) {
    Contents(100).send(client, 'S', 0);
    say("sent");
    until_told();
    throw Failure("nobody killed this client");
}

void metadata(Client &client, const std::string &of_server, const std::string &own) {
    ensure(client.server_metadata() == of_server, "the server's is " + client.server_metadata());
    auto request = client.acquire_request_buffer(std::max<std::size_t>(own.size(), 1));
    request.data()[0] = 'M';
    const auto sequence = request.commit();
    const Response seen = client.receive_response_for(sequence, patience);
    ensure(seen.text() == own, "the server sees " + std::string(seen.text()));
}

void await_end(Client &client) {
    const auto start = std::chrono::steady_clock::now();
    while (std::chrono::steady_clock::now() - start < patience) {
        const auto answer = client.try_receive_response(100ms);
        ensure(!answer, "there is an answer instead of the server's end");
        if (answer.error().kind() == zerobuffer::ErrorKind::PeerClosed) return;
        ensure(answer.error().kind() == zerobuffer::ErrorKind::Timeout, answer.error().what());
    }
    throw Failure("the server does not end");
}

void restart(Client client, const Options &options) {
    roundtrips(client, 100, 1);
    say("ready");
    await_end(client);
    if (client.is_in_place()) {
        client.reconnect(connect_time);
        return roundtrips(client, 100, 1);
    }
    { const Client ended = std::move(client); }
    Client next = connect(options);
    roundtrips(next, 100, 1);
}

/// Eight bytes: the first one, the number, and three times the last one.
std::array<std::uint8_t, 8> message(char first, std::uint32_t number, std::uint8_t last) {
    static_assert(std::endian::native == std::endian::little);
    const std::uint64_t ends = static_cast<std::uint8_t>(first) | std::uint64_t{last} * 0x01010100'00000000;
    return std::bit_cast<std::array<std::uint8_t, 8>>(ends | std::uint64_t{number} << 8);
}

std::chrono::nanoseconds time_calls(Client &client, std::uint32_t count) {
    const auto start = std::chrono::steady_clock::now();
    for (std::uint32_t number = 0; number < count; number++) {
        const Response answer = client.call(message('T', number, 0), patience);
        // No `ensure`, which would make its text each time, on the heap.
        if (!std::ranges::equal(answer, message('t', ~number, 255)))
            throw Failure("the answer has wrong bytes");
    }
    return std::chrono::steady_clock::now() - start;
}

void bench(Client &client, std::uint32_t count) {
    time_calls(client, count / 10);
    std::printf("%.1f\n", static_cast<double>(time_calls(client, count).count()) / count);
}

} // namespace

void run_client(const Options &options) {
    const auto &words = options.words;
    ensure(!words.empty(), "no case is named");
    const auto number = [&words](std::size_t i) { return std::stoul(words.at(i)); };
    Client client = connect(options);
    const std::string &name = words.front();
    if (name == "roundtrips") roundtrips(client, number(1), number(2));
    else if (name == "out-of-order") out_of_order(client);
    else if (name == "failure") failure(std::move(client), options);
    else if (name == "killed") killed(client);
    else if (name == "hold") hold(client);
    else if (name == "metadata") metadata(client, words.at(1), options.client_metadata);
    else if (name == "restart") restart(std::move(client), options);
    else if (name == "bench") bench(client, static_cast<std::uint32_t>(number(1)));
    else throw Failure("no such case: " + name);
}
