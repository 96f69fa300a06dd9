using Microsoft.Extensions.Logging;
using System;
using System.Threading;

namespace ZeroBuffer
{
    /// <summary>What a client's logger is told of its connection: its beginning, its end, and that there is one again.</summary>
    internal sealed class ConnectionLog
    {
        private readonly ILogger _logger;
        private readonly string _name;

        /// <summary>1 from a call that has found no server to the next one that has.</summary>
        private int _isLost;

        internal ConnectionLog(ILogger logger, string name)
        {
            _logger = logger;
            _name = name;
            Say("Connected to {ChannelName}");
        }

        /// <summary>A call has its response.</summary>
        internal void Works()
        {
            if (Volatile.Read(ref _isLost) == 1 && Interlocked.Exchange(ref _isLost, 0) == 1)
            {
                Say("Connected to {ChannelName} again");
            }
        }

        /// <summary>A call has failed: once of many, if there is no server.</summary>
        internal void Failed(Exception error)
        {
            if ((error is PeerGoneException || error is NotRunningException) && Interlocked.Exchange(ref _isLost, 1) == 0)
            {
                ErrorReport.Log(LogLevel.Warning, _logger, error, "The server of {ChannelName} is lost", _name);
            }
        }

        private void Say(string what) => ErrorReport.Log(LogLevel.Information, _logger, null, what, _name);
    }
}
