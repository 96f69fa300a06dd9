using System;

namespace ZeroBuffer
{
    /// <summary>
    /// Receives on a thread of its own, since the native library knows no other way to wait for a request. Each one is
    /// detached from its server.
    /// </summary>
    internal abstract class RequestLoop
    {
        private readonly Func<TimeSpan, Request?> _receive;

        /// <summary><paramref name="receive"/> returns a request that is detached, or null if there was no request in time, and throws at the end.</summary>
        protected RequestLoop(Func<TimeSpan, Request?> receive)
        {
            _receive = receive;
        }

        /// <summary>Once it is complete.</summary>
        protected void Begin() => Elsewhere.Run("zerobuffer-receive", Run);

        private void Run()
        {
            bool goesOn = true;
            while (goesOn)
            {
                try
                {
                    Take(_receive(AwaitDemand()));
                }
                catch (Exception error)
                {
                    goesOn = GoesOn(error);
                }
            }
        }

        /// <summary>Waits until a request is wanted; for how long one is to be waited for then.</summary>
        protected abstract TimeSpan AwaitDemand();

        /// <summary>Null if that time has passed.</summary>
        protected abstract void Take(Request? request);

        /// <summary>Whether to receive again after an error.</summary>
        protected abstract bool GoesOn(Exception error);
    }
}
