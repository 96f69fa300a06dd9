namespace ZeroBuffer
{
    /// <summary>The server of a channel, which edits requests where they lie: no copy, one buffer, one client at a time. For clients of protocol version 2.</summary>
    /// <example>
    /// <code>
    /// using (var server = InPlaceDuplexServer.Create("image-proc", new BufferConfig(4096, 100 * 1024 * 1024)))
    /// {
    ///     server.Start(frame => frame.Data.Reverse());
    ///     using (var client = DuplexClient.Connect("image-proc"))
    ///     using (var response = client.Call(new byte[] { 1, 2, 3 }, TimeSpan.FromSeconds(5)))
    ///     {
    ///         Console.WriteLine(response.Data[0]); // 3
    ///     }
    /// }
    /// </code>
    /// </example>
    public sealed class InPlaceDuplexServer : InPlaceServer
    {
        private InPlaceDuplexServer(string name, ServerConfig config) : base(name, config) { }

        /// <summary>A server of that name. Clients can attach as soon as this returns.</summary>
        /// <exception cref="AlreadyRunningException">A server of that name lives.</exception>
        /// <exception cref="NoSpaceException">/dev/shm does not have the memory.</exception>
        /// <exception cref="BadNameException">The name breaks the rules.</exception>
        public static InPlaceDuplexServer Create(string name, ServerConfig config) => new InPlaceDuplexServer(name, config);
    }
}
