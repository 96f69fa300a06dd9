/// Bytes of the caller that are to be read.
#pragma once

#include <zerobuffer.h>

#include <concepts>
#include <cstddef>
#include <cstdint>
#include <ranges>
#include <string_view>
#include <type_traits>

namespace zerobuffer {

/// The binary interface that the classes were compiled for. Inline, so that nobody has to write it; it keeps
/// their symbols apart from those of another library in namespace `zerobuffer`.
inline namespace abi1 {

/// Bytes that a call reads: made of whatever has them one after the other and lives until the call returns.
/// `std::span`, `std::vector` and `std::array` of `std::uint8_t`, `std::byte` or `char`, `std::string`,
/// `std::string_view`, and text that ends with a zero byte, without that.
class Bytes {
    template <class T>
    static constexpr bool is_byte =
        std::same_as<T, std::byte> || (std::integral<T> && sizeof(T) == 1 && !std::same_as<T, bool>);

public:
    constexpr Bytes() noexcept = default;
    constexpr Bytes(const std::uint8_t *data, std::size_t size) noexcept : data_(data), size_(size) {}
    Bytes(const char *data, std::size_t size) noexcept : Bytes(std::string_view(data, size)) {}
    Bytes(const char *text) noexcept : Bytes(std::string_view(text)) {}
    template <std::ranges::contiguous_range Range>
        requires std::ranges::sized_range<Range> && is_byte<std::ranges::range_value_t<Range>>
    Bytes(const Range &range) noexcept
        : data_(reinterpret_cast<const std::uint8_t *>(std::ranges::data(range))),
          size_(std::ranges::size(range)) {}

    constexpr const std::uint8_t *data() const noexcept { return data_; }
    constexpr std::size_t size() const noexcept { return size_; }

private:
    const std::uint8_t *data_ = nullptr;
    std::size_t size_ = 0;
};

} // namespace abi1
} // namespace zerobuffer
