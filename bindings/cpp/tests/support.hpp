/// What the tests have in common.
#pragma once

#include <zerobuffer/zerobuffer.hpp>

#include <doctest/doctest.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>

namespace zb = zerobuffer;
using namespace std::chrono_literals;

/// Far beyond what anything takes.
inline constexpr std::chrono::nanoseconds patience = 30s;

/// A name of this process alone.
inline std::string channel_name(const std::string &what) {
    return "cpp-" + what + "-" + std::to_string(getpid());
}

inline std::span<const std::uint8_t> bytes(std::string_view text) {
    return {reinterpret_cast<const std::uint8_t *>(text.data()), text.size()};
}

inline void fill(zb::Buffer &buffer, std::string_view text) {
    std::copy(text.begin(), text.end(), buffer.begin());
}

inline void upper(zb::Frame &frame) {
    for (std::uint8_t &byte : frame)
        if (byte >= 'a' && byte <= 'z') byte = static_cast<std::uint8_t>(byte - 32);
}
