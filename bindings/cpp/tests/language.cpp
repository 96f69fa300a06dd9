// What C++ programmers expect of a library: what it takes, how it names things, whom it lives with.

#include "support.hpp"

#include <array>
#include <cstddef>
#include <cxxabi.h>
#include <memory>
#include <type_traits>
#include <typeinfo>
#include <vector>

bool other_library_works();

TEST_CASE("another library in namespace zerobuffer may be in the same program") {
    CHECK(other_library_works());
}

TEST_CASE("whatever is made of bytes can be sent as it is") {
    const std::string name = channel_name("bytes");
    zb::Server server = zb::Server::create(name, zb::BufferConfig(0, 1 << 16));
    server.start(upper);
    zb::Client client = zb::Client::connect(name, patience);
    const std::string string = "string";
    const std::vector<char> characters(string.begin(), string.end());
    const auto same = [&](const zb::Response &response) { return response.text() == "STRING"; };
    CHECK(same(client.call("string", patience)));
    CHECK(same(client.call(string, patience)));
    CHECK(same(client.call(std::string_view(string), patience)));
    CHECK(same(client.call(characters, patience)));
    CHECK(same(client.call(std::as_bytes(std::span(string)), patience)));
    CHECK(same(client.call(std::vector<std::byte>(6, std::byte{'s'}), patience)) == false);
    CHECK(same(client.call({string.data(), string.size()}, patience)));
    CHECK(same(client.call(std::array<std::uint8_t, 6>{'s', 't', 'r', 'i', 'n', 'g'}, patience)));
    CHECK(client.receive_response_for(client.send_request("one"), patience).text() == "ONE");
    CHECK(client.try_call("two", patience)->text() == "TWO");
    CHECK(client.receive_response_for(*client.try_send_request(string), patience));

    zb::v1::Reader reader = zb::v1::Reader::create(name + "-v1", zb::BufferConfig(64, 4096));
    zb::v1::Writer writer = zb::v1::Writer::connect(name + "-v1", patience);
    writer.set_metadata("text");
    writer.write_frame("three");
    CHECK(reader.read_frame(patience).text() == "three");
    writer.try_write_frame(std::as_bytes(std::span(string))).value();
    CHECK(reader.read_frame(patience).text() == string);
}

// What is made of anything else is not bytes.
static_assert(!std::is_convertible_v<std::vector<int>, zb::Bytes>);
static_assert(!std::is_convertible_v<int, zb::Bytes>);
static_assert(std::is_trivially_copyable_v<zb::Bytes>);

TEST_CASE("an error that nobody catches prints the name of its class") {
    const auto refused = zb::Client::try_connect(channel_name("nobody"), 0ns);
    try {
        refused.error().raise();
    } catch (const std::exception &error) {
        int status = 0;
        const std::unique_ptr<char, void (*)(void *)> demangled(
            abi::__cxa_demangle(typeid(error).name(), nullptr, nullptr, &status), std::free);
        CHECK(std::string(demangled.get()) == "zerobuffer::abi1::NotRunning");
    }
}

TEST_CASE("a ring for so many frames holds exactly so many") {
    const std::string name = channel_name("frames");
    zb::Server server = zb::Server::create(name, zb::BufferConfig::for_frames(1000, 3));
    zb::Client client = zb::Client::connect(name, patience, {.send_timeout = 0ns});
    const std::vector<std::byte> frame(1000);
    for (int number = 0; number < 3; number++) client.send_request(frame);
    CHECK_THROWS_AS(client.send_request(frame), zb::Full);
}
