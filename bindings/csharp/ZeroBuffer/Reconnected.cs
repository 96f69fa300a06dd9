using System;
using System.Collections.Generic;

namespace ZeroBuffer
{
    /// <summary>What became of the requests that were sent before <see cref="DuplexClient.Reconnect"/>.</summary>
    public sealed class Reconnected
    {
        internal Reconnected(KeyValuePair<ulong, ulong>[] resent, LostRequest[] lost)
        {
            Resent = resent;
            Lost = lost;
        }

        /// <summary>Requests that were sent again: their former sequence number, and the new one.</summary>
        public IReadOnlyList<KeyValuePair<ulong, ulong>> Resent { get; private set; }

        /// <summary>Requests that were not.</summary>
        public IReadOnlyList<LostRequest> Lost { get; private set; }
    }
}
