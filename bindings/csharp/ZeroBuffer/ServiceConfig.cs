using System;
using System.Collections.Generic;
using System.Linq;

namespace ZeroBuffer
{
    /// <summary>What a server of a <see cref="Service"/> is made of. <c>null</c> in a property means its default.</summary>
    /// <example>
    /// <code>
    /// var config = new ServiceConfig { RingSize = 8 &lt;&lt; 20, MaxClients = 16, Workers = 2, Users = { 1001 } };
    /// using (var service = Service.Create("thumbnails", config))
    /// {
    ///     service.Start(frame => frame.Data.Reverse());
    /// }
    /// </code>
    /// </example>
    public sealed unsafe class ServiceConfig : ServerConfigBase
    {
        /// <summary>Bytes of the ring of a client that asks for none in particular. Default 32 MiB, all of which is reserved when the client attaches.</summary>
        public long? RingSize { get; set; }

        /// <summary>Bytes of metadata for each direction; a message needs 8 more than its length. Default 4096.</summary>
        public long? MetadataSize { get; set; }

        /// <summary>The largest ring that a client can ask for. Default 1 GiB, which is also the most.</summary>
        public long? MaxRingSize { get; set; }

        /// <summary>
        /// The most bytes of all clients' memory together. Default: half of what the machine, or the cgroup, has free when the
        /// service is created. Beyond it clients get <see cref="NoSpaceException"/>.
        /// </summary>
        public long? MaxBytes { get; set; }

        /// <summary>The most clients at the same time. Default 64. Further ones get <see cref="BusyException"/>, once their timeout has passed.</summary>
        public int? MaxClients { get; set; }

        /// <summary>The most clients of one user at the same time. Default: half of <see cref="MaxClients"/> for other users, all of them for this server's own.</summary>
        public int? MaxClientsPerUser { get; set; }

        /// <summary>
        /// The most requests of one client that are worked on at the same time, so that one with long requests leaves
        /// handlers to the others. Default: as many as there are handlers.
        /// </summary>
        public int? HandlersPerClient { get; set; }

        /// <summary>Ids of users whose programs may attach, besides this server's own user and root.</summary>
        public ICollection<uint> Users { get; } = new List<uint>();

        /// <summary>Ids of groups whose members may attach, the last of which owns the directory and the socket.</summary>
        public ICollection<uint> Groups { get; } = new List<uint>();

        /// <summary>
        /// The runtime directory. Default: <c>$ZEROBUFFER_DIR</c>, else <c>/run/zerobuffer</c> for root, else
        /// <c>$XDG_RUNTIME_DIR/zerobuffer</c>, else <c>/tmp/zerobuffer-&lt;uid&gt;</c>.
        /// </summary>
        public string? Directory { get; set; }

        /// <summary>
        /// The descriptor of a listening <c>SOCK_SEQPACKET</c> socket that this process was given, by systemd for instance. It
        /// is neither closed nor removed. Default: a socket of the server's own.
        /// </summary>
        public int? Listener { get; set; }

        internal override int Create(byte* name, uint kind, byte* metadata, UIntPtr metadataLength, IntPtr* server)
        {
            uint[] users = Users.ToArray();
            uint[] groups = Groups.ToArray();
            fixed (uint* firstUser = users)
            fixed (uint* firstGroup = groups)
            fixed (byte* directory = Interop.NameOrDefault(Directory))
            {
                var native = new Native.ServiceConfig
                {
                    Size = (UIntPtr)sizeof(Native.ServiceConfig),
                    RingSize = Interop.Positive(RingSize, "RingSize"),
                    MetadataSize = Interop.Positive(MetadataSize, "MetadataSize"),
                    MaxRingSize = Interop.Positive(MaxRingSize, "MaxRingSize"),
                    MaxBytes = (ulong)Interop.Positive(MaxBytes, "MaxBytes"),
                    MaxClients = Interop.Positive(MaxClients, "MaxClients"),
                    MaxClientsPerUser = Interop.Positive(MaxClientsPerUser, "MaxClientsPerUser"),
                    Wait = (uint)Wait,
                    Workers = Interop.Positive(Workers, "Workers"),
                    Metadata = metadata,
                    MetadataLength = metadataLength,
                    StopTimeout = Interop.NanosecondsOrDefault(StopTimeout),
                    Users = firstUser,
                    UserCount = (UIntPtr)users.Length,
                    Groups = firstGroup,
                    GroupCount = (UIntPtr)groups.Length,
                    Directory = directory,
                    HasListener = Listener.HasValue ? 1u : 0u,
                    Listener = Listener.GetValueOrDefault(),
                    HandlersPerClient = Interop.Positive(HandlersPerClient, "HandlersPerClient"),
                };
                return Native.zb_service_create(name, &native, server);
            }
        }
    }

    /// <summary>Who has sent a request to a service: by the system's word and, as to its label, by its own.</summary>
    public sealed class ClientIdentity
    {
        internal ClientIdentity(Native.ClientIdentity client, string label)
        {
            Number = client.Number;
            Label = label;
            ProcessId = (int)client.Pid;
            UserId = client.Uid;
            GroupId = client.Gid;
        }

        /// <summary>The number of its connection on this server, from 1, never used again.</summary>
        public ulong Number { get; }

        /// <summary>What it says of itself; by default its program's name.</summary>
        public string Label { get; }

        /// <summary>The process that connected; 0 if it is not visible from this one's pid namespace.</summary>
        public int ProcessId { get; }

        /// <summary>Its effective user when it connected.</summary>
        public uint UserId { get; }

        /// <summary>Its effective group when it connected.</summary>
        public uint GroupId { get; }
    }
}
