// A server and a client with pictures, for the page about C++.

#include <opencv2/core.hpp>
#include <opencv2/imgproc.hpp>
#include <zerobuffer/zerobuffer.hpp>

using namespace std::chrono_literals;

struct Camera {
    static void read(cv::Mat &picture) {
        picture.setTo(0);
        picture.at<cv::Vec3b>(540, 960) = {255, 255, 255};
    }
};

int main() {
    Camera camera;
    auto server =
        zerobuffer::Server::create("cpp-opencv", zerobuffer::BufferConfig::for_frames(1920 * 1080 * 3, 2));
    auto client = zerobuffer::Client::connect("cpp-opencv", 5s);
SNIPPET
    const auto middle = blurred.at<cv::Vec3b>(540, 960)[0];
    return middle > 0 && middle < 255 && blurred.data == response.data() ? 0 : 1;
}
