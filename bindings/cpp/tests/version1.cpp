#include "support.hpp"

#include <vector>

TEST_CASE("a reader reads what a writer writes, where it lies") {
    const std::string name = channel_name("v1");
    zb::v1::Reader reader = zb::v1::Reader::create(name, zb::BufferConfig(64, 4096));
    CHECK_THROWS_AS(reader.read_frame(0ns), zb::NotConnectedYet);
    zb::v1::Frame last;
    {
        zb::v1::Writer writer = zb::v1::Writer::connect(name, patience);
        CHECK(reader.is_writer_connected());
        CHECK(writer.is_reader_connected());
        writer.set_metadata(bytes("text"));
        CHECK_THROWS_AS(writer.set_metadata(bytes("text")), zb::MetadataAlreadyWritten);
        CHECK(writer.write_frame(bytes("one")) == 1);
        zb::v1::FrameBuffer two = writer.acquire(3);
        CHECK_THROWS_AS(writer.write_frame(bytes("x")), zb::ClaimOpen);
        fill(two, "two");
        CHECK(two.commit() == 2);
        CHECK(writer.try_write_frame({}).error().kind() == zb::ErrorKind::EmptyFrame);
        auto three = writer.try_acquire(5);
        REQUIRE(three);
        fill(*three, "three");
        CHECK(*three->try_commit() == 3);
    }
    CHECK(reader.read_frame(patience).text() == "one");
    const std::vector<std::uint8_t> metadata = reader.metadata();
    CHECK(std::string(metadata.begin(), metadata.end()) == "text");
    CHECK(reader.try_read_frame(patience)->text() == "two");
    last = reader.read_frame(patience);
    CHECK(last.sequence() == 3);
    CHECK_THROWS_AS(reader.read_frame(patience), zb::PeerClosed);
    reader = zb::v1::Reader::create(channel_name("v1-other"));
    CHECK(last.text() == "three");
}

TEST_CASE("servers of two buffers edit a copy, or return new data") {
    const auto factory = zb::DuplexChannelFactory::getInstance();
    const std::string edits = channel_name("edits"), returns = channel_name("returns");
    const auto mutable_server = factory.createMutableServer(edits, {256, 1 << 16});
    mutable_server->start(upper);
    const auto client = factory.createClient(edits);
    CHECK_FALSE(client->is_in_place());
    CHECK_FALSE(client->is_desynchronised());
    zb::Response first = client->call(bytes("first"), patience);
    zb::Response second = client->call(bytes("second"), patience);
    CHECK(first.text() == "FIRST");
    CHECK(second.text() == "SECOND");
    CHECK_THROWS_AS(client->reconnect(0ns), zb::InvalidState);
    first.release();
    second.release();
    client->reconnect(patience);
    CHECK(client->call(bytes("third"), patience).text() == "THIRD");

    const auto immutable_server = factory.createImmutableServer(returns, {256, 1 << 16});
    immutable_server->start([](const zb::Frame &frame) {
        return std::string(frame.text()) + ", " + std::string(frame.text());
    });
    const auto other = factory.createClient(returns);
    CHECK(other->call(bytes("twice"), patience).text() == "twice, twice");
    const auto seq = other->sendRequest("more", 4);
    const auto response = other->receiveResponse(30'000);
    CHECK(response.sequence() == seq);
    CHECK(response.text() == "more, more");
}
