/// One way in to every kind of duplex channel, by the names of the proposal for it.
#pragma once

#include "client.hpp"
#include "server.hpp"

#include <chrono>
#include <memory>
#include <string>

namespace zerobuffer {
inline namespace abi1 {

/// Makes servers of all three kinds, and the one client that talks to each of them.
class DuplexChannelFactory {
public:
    static DuplexChannelFactory getInstance() { return {}; }

    /// A server that edits requests where they lie.
    std::unique_ptr<Server> createInPlaceDuplexServer(const std::string &name,
                                                      BufferConfig buffer) const {
        return std::make_unique<Server>(Server::create(name, buffer));
    }
    /// A server of two buffers whose handler edits a copy of the request.
    std::unique_ptr<MutableDuplexServer> createMutableServer(const std::string &name,
                                                             BufferConfig buffer) const {
        return std::make_unique<MutableDuplexServer>(
            MutableDuplexServer::create(name, ServerConfig{.buffer = buffer}));
    }
    /// A server of two buffers whose handler returns new data.
    std::unique_ptr<ImmutableDuplexServer> createImmutableServer(const std::string &name,
                                                                 BufferConfig buffer) const {
        return std::make_unique<ImmutableDuplexServer>(
            ImmutableDuplexServer::create(name, ServerConfig{.buffer = buffer}));
    }
    /// A client of whatever kind of server has the name, waiting for one until the timeout has passed.
    std::unique_ptr<Client>
    createClient(const std::string &name,
                 std::chrono::nanoseconds timeout = std::chrono::seconds(5)) const {
        return std::make_unique<Client>(Client::connect(name, timeout));
    }
};

} // namespace abi1
} // namespace zerobuffer
