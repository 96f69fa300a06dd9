using Microsoft.Extensions.Logging;
using System;

namespace ZeroBuffer.DuplexChannel
{
    /// <summary>The client of version 1: a writer of requests, and a reader of responses.</summary>
    internal sealed class PairClient : IDuplexClient
    {
        private const int MetadataSize = 4096;

        /// <summary>What every client has, so that a server need not ask what fits. Where there is not the memory, it has less.</summary>
        private const int PayloadSize = 256 * 1024 * 1024;
        private const int LeastPayloadSize = 4 * 1024 * 1024;

        private readonly Writer _requests;
        private readonly Reader _responses;

        internal PairClient(string channel, ILoggerFactory loggers)
        {
            _requests = new Writer(Names.Requests(channel), loggers.CreateLogger<Writer>());
            try
            {
                _responses = Responses(Names.Responses(channel), loggers.CreateLogger<Reader>());
            }
            catch
            {
                _requests.Dispose();
                throw;
            }
        }

        private static Reader Responses(string name, ILogger<Reader> logger)
        {
            for (int size = PayloadSize; ; size /= 2)
            {
                try
                {
                    return new Reader(name, new BufferConfig(MetadataSize, size), logger);
                }
                catch (NoSpaceException) when (size > LeastPayloadSize)
                {
                    logger.LogDebug("There is no room for {Size} bytes of responses", size);
                }
            }
        }

        public bool IsServerConnected => _requests.IsReaderConnected();

        public ulong SendRequest(byte[] data) => _requests.WriteFrame(data ?? throw new ArgumentNullException("data"));

        public ulong AcquireRequestBuffer(int size, out Span<byte> buffer)
        {
            buffer = _requests.GetFrameBuffer(size, out ulong sequence);
            return sequence;
        }

        public void CommitRequest() => _requests.CommitFrame();

        public Frame ReceiveResponse(TimeSpan timeout) => _responses.ReadFrame(timeout);

        public void SetMetadata(ReadOnlySpan<byte> data) => _requests.SetMetadata(data);

        public void Dispose()
        {
            _requests.Dispose();
            _responses.Dispose();
        }
    }
}
