#include "peer.hpp"

#include <exception>
#include <iostream>

using zerobuffer::WaitStrategy;

void transform(std::span<std::uint8_t> data) {
    if (data.empty()) return;
    data[0] = 't';
    for (std::uint8_t &byte : data.subspan(1)) byte = static_cast<std::uint8_t>(~byte);
}

void say(const std::string &line) { std::cout << line << std::endl; }

void until_told() {
    for (std::string line; std::getline(std::cin, line);) continue;
}

static WaitStrategy wait_strategy(const std::string &name) {
    if (name == "default") return WaitStrategy::SpinThenPark;
    if (name == "park") return WaitStrategy::Park;
    if (name == "spin") return WaitStrategy::Spin;
    throw Failure("--wait " + name);
}

static void set_kind(Options &options, const std::string &kind) {
    if (kind != "in-place" && kind != "two-buffers" && kind != "service") throw Failure("--kind " + kind);
    options.in_place = kind != "two-buffers";
    options.service = kind == "service";
}

static Options parse(std::span<char *> arguments) {
    Options options;
    for (std::size_t i = 0; i < arguments.size(); i++) {
        const std::string word = arguments[i];
        if (!word.starts_with("--")) {
            options.words.push_back(word);
            continue;
        }
        if (++i == arguments.size()) throw Failure("no value for " + word);
        const std::string value = arguments[i];
        if (word == "--kind") set_kind(options, value);
        else if (word == "--wait") options.wait = wait_strategy(value);
        else if (word == "--payload") options.payload = std::stoul(value);
        else if (word == "--metadata") options.metadata = std::stoul(value);
        else if (word == "--workers") options.workers = static_cast<unsigned>(std::stoul(value));
        else if (word == "--server-metadata") options.server_metadata = value;
        else if (word == "--client-metadata") options.client_metadata = value;
        else throw Failure("no such option: " + word);
    }
    if (options.words.empty()) throw Failure("no channel is named");
    options.channel = options.words.front();
    options.words.erase(options.words.begin());
    return options;
}

int main(int count, char **arguments) {
    try {
        const std::string role = count > 1 ? arguments[1] : "";
        if (role != "server" && role != "client") throw Failure("usage: PEER server|client …");
        const Options options = parse(std::span(arguments + 2, arguments + count));
        role == "server" ? serve(options) : run_client(options);
        return 0;
    } catch (const std::exception &error) {
        std::cerr << error.what() << '\n';
        return 1;
    }
}
