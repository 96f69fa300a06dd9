// The usage example of the proposal for in-place duplex channels, line by line as it stands there. What it
// leaves open is filled in around it: the two image functions, and the ends of both sides.

#include <zerobuffer/zerobuffer.hpp>

#include <algorithm>
#include <cstdint>
#include <cstdio>
#include <vector>

using namespace zerobuffer;

static void apply_gaussian_blur(uint8_t *data, size_t size) {
    for (size_t i = 1; i + 1 < size; i++)
        data[i] = static_cast<uint8_t>((data[i - 1] + 2 * data[i] + data[i + 1]) / 4);
}

static bool processed = false;

static void process(const uint8_t *data, size_t size, std::vector<uint8_t> expected) {
    apply_gaussian_blur(expected.data(), expected.size());
    processed = std::equal(data, data + size, expected.begin(), expected.end());
}

int main() {
    std::vector<uint8_t> image(1920 * 1080 * 3);
    for (size_t i = 0; i < image.size(); i++) image[i] = static_cast<uint8_t>(i * i);
    const uint8_t *image_data = image.data();
    const size_t image_size = image.size();

    // Server side
    auto factory = DuplexChannelFactory::getInstance();
    auto server = factory.createInPlaceDuplexServer("image-proc",
        BufferConfig(4096, 100*1024*1024));  // 100MB shared payload

    server->start([](Frame& frame) {
        // Get mutable access to frame data
        uint8_t* data = frame.get_mutable_data();
        size_t size = frame.size();

        // Modify in place (e.g., apply image filter)
        apply_gaussian_blur(data, size);

        // No return needed - data modified in place
        // Server automatically preserves sequence number
    });

    // Client side
    auto client = factory.createClient("image-proc");

    // Send request
    auto seq = client->sendRequest(image_data, image_size);

    // Receive modified response (same memory, transformed)
    auto response = client->receiveResponse(5000);
    if (response.sequence() == seq) {
        // Process modified image
        process(response.data(), response.size(), image);
    }

    std::puts(processed ? "the image came back blurred" : "the image is wrong");
    return processed ? 0 : 1;
}
