// The example of README.md and docs/cpp.md, which is this program from the first line of code on.

#include <zerobuffer/zerobuffer.hpp>
using namespace std::chrono_literals;

int main() {
    auto server = zerobuffer::Server::create("cpp-readme", zerobuffer::BufferConfig(0, 16 << 20));
    server.start([](zerobuffer::Frame &frame) {
        for (auto &byte : frame) byte = 255 - byte; // where the client wrote it
    });
    auto client = zerobuffer::Client::connect("cpp-readme", 5s);
    auto request = client.acquire_request_buffer(1920 * 1080 * 3);
    for (auto &byte : request) byte = 200; // written where the server will edit it
    auto sequence = request.commit();
    auto response = client.receive_response_for(sequence, 1s);
    return response.data()[0] == 55 ? 0 : 1; // read where it was written
}
