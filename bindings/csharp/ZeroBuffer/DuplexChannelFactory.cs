using System;

namespace ZeroBuffer
{
    /// <summary>Makes servers of all three kinds, and the one client that talks to each of them.</summary>
    public interface IDuplexChannelFactory
    {
        /// <summary>A server that edits requests where they lie. Clients can attach as soon as this returns.</summary>
        /// <exception cref="AlreadyRunningException">A server of that name lives.</exception>
        /// <exception cref="NoSpaceException">/dev/shm does not have the memory.</exception>
        /// <exception cref="BadNameException">The name breaks the rules.</exception>
        IInPlaceDuplexServer CreateInPlaceDuplexServer(string name, ServerConfig config);

        /// <summary>A server of two buffers whose handler edits a copy of the request.</summary>
        /// <exception cref="ZeroBufferException">As <see cref="CreateInPlaceDuplexServer"/>.</exception>
        IMutableDuplexServer CreateMutableServer(string name, ServerConfig config);

        /// <summary>A server of two buffers whose handler answers with other bytes.</summary>
        /// <exception cref="ZeroBufferException">As <see cref="CreateInPlaceDuplexServer"/>.</exception>
        IImmutableDuplexServer CreateImmutableServer(string name, ServerConfig config);

        /// <summary>A client with the defaults, which waits up to 5 s for a server of any kind.</summary>
        /// <exception cref="ZeroBufferException">As <see cref="CreateClient(string, TimeSpan, ClientConfig)"/>.</exception>
        IDuplexClient CreateClient(string name);

        /// <summary>
        /// A client, waiting for its server until the timeout has passed; zero tries once. <paramref name="config"/> may
        /// be null for the defaults.
        /// </summary>
        /// <exception cref="NotRunningException">There is no server.</exception>
        /// <exception cref="BusyException">The server has another client.</exception>
        /// <exception cref="BadNameException">The name breaks the rules.</exception>
        IDuplexClient CreateClient(string name, TimeSpan timeout, ClientConfig config = null);
    }

    /// <summary>The factory; it has no state.</summary>
    /// <example>
    /// <code>
    /// var factory = DuplexChannelFactory.Instance;
    /// using (var server = factory.CreateInPlaceDuplexServer("image-proc", new BufferConfig(4096, 100 * 1024 * 1024)))
    /// {
    ///     server.Start(frame => frame.Data.Reverse());
    ///     using (var client = factory.CreateClient("image-proc"))
    ///     using (var response = client.Call(new byte[] { 1, 2, 3 }, TimeSpan.FromSeconds(5)))
    ///     {
    ///         Console.WriteLine(response.Data[0]); // 3
    ///     }
    /// }
    /// </code>
    /// </example>
    public sealed class DuplexChannelFactory : IDuplexChannelFactory
    {
        private static readonly TimeSpan Patience = TimeSpan.FromSeconds(5);

        private DuplexChannelFactory() { }

        /// <summary>The one that there is.</summary>
        public static readonly DuplexChannelFactory Instance = new DuplexChannelFactory();

        /// <summary>
        /// Whether core dumps of this process hold what its channels carry. They do not, unless this is called with
        /// <c>true</c>, for what is created from then on.
        /// </summary>
        public static void IncludeInCoreDumps(bool include) => Native.zb_include_in_core_dumps(include ? (byte)1 : (byte)0);

        /// <inheritdoc/>
        public IInPlaceDuplexServer CreateInPlaceDuplexServer(string name, ServerConfig config) =>
            DuplexServer.Create(name, config, DuplexServer.InPlace);

        /// <inheritdoc/>
        public IMutableDuplexServer CreateMutableServer(string name, ServerConfig config) =>
            DuplexServer.Create(name, config, DuplexServer.Mutable);

        /// <inheritdoc/>
        public IImmutableDuplexServer CreateImmutableServer(string name, ServerConfig config) =>
            DuplexServer.Create(name, config, DuplexServer.Immutable);

        /// <inheritdoc/>
        public IDuplexClient CreateClient(string name) => CreateClient(name, Patience);

        /// <inheritdoc/>
        public IDuplexClient CreateClient(string name, TimeSpan timeout, ClientConfig config = null)
        {
            return DuplexClient.Connect(name, config ?? new ClientConfig(), timeout);
        }
    }
}
