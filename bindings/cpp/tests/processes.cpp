#include "support.hpp"

#include <csignal>
#include <sys/wait.h>

namespace {

/// A server in a process of its own, killed with this object.
class ServerProcess {
public:
    explicit ServerProcess(const std::string &name) {
        REQUIRE(pipe(told_) == 0);
        child_ = fork();
        REQUIRE(child_ >= 0);
        if (child_ == 0) serve(name, told_[1]);
        CHECK(next_word() == 'r');
    }
    ~ServerProcess() { kill_it(); }

    char next_word() {
        char word = 0;
        CHECK(read(told_[0], &word, 1) == 1);
        return word;
    }

    void kill_it() {
        if (child_ == 0) return;
        kill(child_, SIGKILL);
        waitpid(child_, nullptr, 0);
        close(told_[0]);
        close(told_[1]);
        child_ = 0;
    }

private:
    [[noreturn]] static void serve(const std::string &name, int told) {
        const auto say = [told](const char *word) { return write(told, word, 1) == 1; };
        try {
            zb::Server server = zb::Server::create(name, zb::BufferConfig(0, 1 << 16));
            server.start([say](zb::Frame &frame) {
                upper(frame);
                if (frame.text() == "HANG" && say("h"))
                    for (;;) pause();
            });
            if (say("r"))
                for (;;) pause();
        } catch (...) {
        }
        _exit(1);
    }

    pid_t child_ = 0;
    int told_[2] = {-1, -1};
};

} // namespace

TEST_CASE("a server's death says of each request what is known, and the next server is reached") {
    const std::string name = channel_name("death");
    zb::Client client = [&name] {
        ServerProcess process(name);
        zb::Client connected = zb::Client::connect(name, patience, {.resend_not_started = true});
        const std::uint64_t taken = connected.send_request(bytes("hang"));
        CHECK(process.next_word() == 'h');
        CHECK(connected.send_request(bytes("waiting")) == taken + 1);
        process.kill_it();
        try {
            connected.receive_response_for(taken, patience);
            FAIL("nothing was thrown");
        } catch (const zb::PeerGone &error) {
            CHECK(error.kind() == zb::ErrorKind::PeerDied);
            CHECK(error.sequence() == taken);
            CHECK(error.request_state() == zb::RequestState::InDoubt);
        }
        return connected;
    }();

    {
        ServerProcess successor(name);
        const zb::Reconnected report = client.reconnect(patience);
        CHECK(report.lost.empty());
        REQUIRE(report.resent.size() == 1);
        CHECK(client.receive_response_for(report.resent[0].second, patience).text() == "WAITING");
    }
    // What the killed one left goes with its successor.
    const zb::Server last = zb::Server::create(name);
}

TEST_CASE("a forked child has nothing of its parent's handles") {
    const std::string name = channel_name("fork");
    zb::Server server = zb::Server::create(name, zb::BufferConfig(0, 1 << 16));
    server.start(upper);
    zb::Client client = zb::Client::connect(name, patience);
    const pid_t child = fork();
    REQUIRE(child >= 0);
    if (child == 0) {
        const auto refused = client.try_call(bytes("x"), patience);
        _exit(!refused && refused.error().kind() == zb::ErrorKind::WrongProcess ? 0 : 1);
    }
    int status = -1;
    CHECK(waitpid(child, &status, 0) == child);
    CHECK(status == 0);
    CHECK(client.call(bytes("still"), patience).text() == "STILL");
}
