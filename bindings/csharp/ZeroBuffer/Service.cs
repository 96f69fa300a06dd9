using System;

namespace ZeroBuffer
{
    /// <summary>
    /// A server of any number of clients, each with memory of its own, under a name that any number of servers, in any number of
    /// processes, share. <see cref="Frame.Client"/> says who asks.
    /// </summary>
    /// <remarks>
    /// Clients find it before a channel of the same name, by <see cref="DuplexClient.Connect(string)"/>. Nothing is left
    /// in the file system but an empty directory.
    /// </remarks>
    /// <example>
    /// <code>
    /// using (var service = Service.Create("upper-case"))
    /// {
    ///     service.Start(frame =>
    ///     {
    ///         Console.WriteLine(frame.Client.ProcessId == Process.GetCurrentProcess().Id); // True
    ///         frame.Data.Reverse();
    ///     });
    ///     using (var first = DuplexClient.Connect("upper-case"))
    ///     using (var second = DuplexClient.Connect("upper-case"))
    ///     using (var response = second.Call(new byte[] { 1, 2, 3 }, TimeSpan.FromSeconds(5)))
    ///     {
    ///         Console.WriteLine(response.Data[0] + ", " + service.Clients + " clients"); // 3, 2 clients
    ///     }
    /// }
    /// </code>
    /// </example>
    public sealed class Service : InPlaceServer
    {
        private Service(string name, ServiceConfig config) : base(name, config) { }

        /// <summary>
        /// A server of the service. Clients can attach as soon as this returns. <paramref name="config"/> may be null for the
        /// defaults.
        /// </summary>
        /// <exception cref="AlreadyRunningException">A channel of that name has a server, whose clients this one would take.</exception>
        /// <exception cref="ForeignObjectException">Others can write to the runtime directory.</exception>
        /// <exception cref="BadNameException">The name breaks the rules.</exception>
        /// <exception cref="BadConfigException">The configuration is not possible.</exception>
        public static Service Create(string name, ServiceConfig? config = null) => new Service(name, config ?? new ServiceConfig());

        /// <summary>How many clients are attached at this moment.</summary>
        /// <exception cref="ObjectDisposedException">The server was disposed.</exception>
        public int Clients => CountClients();
    }
}
