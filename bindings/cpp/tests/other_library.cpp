// A program may hold another library that lives in namespace zerobuffer and has headers of its own in a
// folder zerobuffer, as the existing C++ library of version 1 is and does: each in its own source files.
// This file is such a library's user, with classes of the same names that are something else.

#include <cstddef>
#include <cstdint>

#define ZEROBUFFER_H // that library's header zerobuffer/zerobuffer.h was included before
#include <zerobuffer.h>

namespace zerobuffer {

struct BufferConfig {
    std::size_t one_field_only;

    BufferConfig(std::size_t metadata, std::size_t payload) : one_field_only(metadata + payload) {}
};

class Frame {
public:
    Frame() = default;
    std::size_t size() const noexcept { return 4242; }
    std::uint64_t sequence() const noexcept { return 4243; }
    std::uint8_t *data() noexcept { return nullptr; }
};

struct Error {
    int kind() const noexcept { return 4244; }
};

} // namespace zerobuffer

bool other_library_works() {
    zerobuffer::BufferConfig config(1, 2);
    zerobuffer::Frame frame;
    return config.one_field_only == 3 && frame.size() == 4242 && frame.sequence() == 4243 &&
           frame.data() == nullptr && zerobuffer::Error().kind() == 4244 &&
           zb_abi_version() == ZB_ABI_VERSION;
}
