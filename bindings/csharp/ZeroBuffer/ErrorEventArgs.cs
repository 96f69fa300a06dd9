using Microsoft.Extensions.Logging;
using System;

namespace ZeroBuffer
{
    /// <summary>What went wrong on a server's own threads.</summary>
    public class ErrorEventArgs : EventArgs
    {
        /// <summary>Of this exception.</summary>
        public ErrorEventArgs(Exception exception)
        {
            Exception = exception;
        }

        /// <summary>What was thrown.</summary>
        public Exception Exception { get; }
    }

    /// <summary>Says what went wrong on a server's own threads, where nobody catches what a program's loggers and events throw.</summary>
    internal static class ErrorReport
    {
        /// <summary><paramref name="what"/> has a place for the channel's name.</summary>
        internal static void Tell(
            object server, EventHandler<ErrorEventArgs>? onError, ILogger logger, Exception error, string what, string channel)
        {
            // That a peer has ended is no fault of this program.
            LogLevel level = error is PeerGoneException ? LogLevel.Information : LogLevel.Error;
            Log(level, logger, error, what, channel);
            try
            {
                onError?.Invoke(server, new ErrorEventArgs(error));
            }
            catch (Exception failure)
            {
                Log(LogLevel.Error, logger, failure, "A handler of OnError failed, channel {ChannelName}", channel);
            }
        }

        /// <summary>What a client is told of it. An exception of a program's own may have no message, or throw in its place.</summary>
        internal static string Words(Exception error)
        {
            try
            {
                return error.Message ?? error.GetType().Name;
            }
            catch (Exception)
            {
                return error.GetType().Name;
            }
        }

        internal static void Log(LogLevel level, ILogger logger, Exception? error, string what, string channel)
        {
            try
            {
                logger.Log(level, error, what, channel);
            }
            catch (Exception)
            {
                // Where to, if not to the logger?
            }
        }
    }
}
