/// The peer in C++; see the README of `tests/interop`.
#pragma once

#include <zerobuffer/zerobuffer.hpp>

#include <cstddef>
#include <cstdint>
#include <span>
#include <stdexcept>
#include <string>
#include <vector>

/// What went wrong, for standard error.
struct Failure : std::runtime_error {
    using std::runtime_error::runtime_error;
};

/// The options of both roles.
struct Options {
    std::string channel;
    /// The kind of channel; a service is used as a channel in place is.
    bool in_place = true;
    bool service = false;
    zerobuffer::WaitStrategy wait = zerobuffer::WaitStrategy::SpinThenPark;
    std::size_t payload = 0;
    std::size_t metadata = 0;
    unsigned workers = 1;
    std::string server_metadata;
    std::string client_metadata;
    /// The case and what it is told.
    std::vector<std::string> words;
};

/// Byte 0 becomes `t`, every other byte b becomes 255 - b.
void transform(std::span<std::uint8_t> data);
/// Says a line on standard output, at once.
void say(const std::string &line);
/// Comes back when standard input ends.
void until_told();

void serve(const Options &options);
void run_client(const Options &options);
