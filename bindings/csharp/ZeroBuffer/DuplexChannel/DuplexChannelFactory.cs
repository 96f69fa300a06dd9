using Microsoft.Extensions.Logging;
using Microsoft.Extensions.Logging.Abstractions;
using System;

namespace ZeroBuffer.DuplexChannel
{
    /// <summary>Makes servers and clients of version 1, which say to its loggers what happens.</summary>
    /// <example>
    /// <code>
    /// var factory = new DuplexChannelFactory(loggerFactory);
    /// using (IImmutableDuplexServer server = factory.CreateImmutableServer("upper", new BufferConfig(1024, 1 &lt;&lt; 20)))
    /// {
    ///     server.Start((request, responses) => responses.WriteFrame(request.Span));
    ///     using (IDuplexClient client = factory.CreateClient("upper"))
    ///     {
    ///         client.SendRequest(new byte[] { 1, 2, 3 });
    ///         using (Frame response = client.ReceiveResponse(TimeSpan.FromSeconds(5)))
    ///         {
    ///             Console.WriteLine(response.Size); // 3
    ///         }
    ///     }
    /// }
    /// </code>
    /// </example>
    public class DuplexChannelFactory : IDuplexChannelFactory
    {
        private static readonly TimeSpan DefaultTimeout = TimeSpan.FromSeconds(5);

        private readonly ILoggerFactory _loggers;

        /// <summary>One whose servers and clients say nothing if there is no factory of loggers.</summary>
        public DuplexChannelFactory(ILoggerFactory? loggerFactory = null)
        {
            _loggers = loggerFactory ?? NullLoggerFactory.Instance;
        }

        /// <summary>Whether the channel's server is there, waiting for it until the timeout has passed.</summary>
        /// <exception cref="ArgumentException">The name is null or empty.</exception>
        public static bool WaitExists(string channelName, TimeSpan timeout, ILogger? logger = null)
        {
            Names.RefuseEmpty(channelName);
            return Reader.WaitExists(Names.Requests(channelName), timeout, logger);
        }

        bool IDuplexChannelFactory.WaitExists(string channelName, TimeSpan timeout) => WaitExists(channelName, timeout);

        /// <inheritdoc/>
        public IImmutableDuplexServer CreateImmutableServer(string channelName, BufferConfig config, TimeSpan? timeout = null)
        {
            Names.RefuseEmpty(channelName);
            return new PairServer(
                channelName, config ?? throw new ArgumentNullException("config"), timeout ?? DefaultTimeout, _loggers);
        }

        /// <inheritdoc/>
        public IDuplexClient CreateClient(string channelName)
        {
            Names.RefuseEmpty(channelName);
            return new PairClient(channelName, _loggers);
        }
    }

    /// <summary>The buffers of a channel of version 1.</summary>
    internal static class Names
    {
        internal static string Requests(string channel) => channel + "_request";

        internal static string Responses(string channel) => channel + "_response";

        internal static void RefuseEmpty(string channelName)
        {
            if (string.IsNullOrEmpty(channelName))
            {
                throw new ArgumentException("a channel name has at least one character", "channelName");
            }
        }
    }
}
