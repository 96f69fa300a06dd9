using System;
using System.Diagnostics;
using System.Threading;

namespace ZeroBuffer
{
    /// <summary>
    /// Waits for room in the ring outside of the client, where other threads can give theirs back. It begins to count when
    /// there was none.
    /// </summary>
    internal struct FullRetry
    {
        private readonly TimeSpan _timeout;
        private Stopwatch _since;
        private SpinWait _spin;

        internal FullRetry(TimeSpan timeout)
        {
            _timeout = timeout;
            _since = null;
            _spin = default(SpinWait);
        }

        /// <summary>Whether it is worth another try, after a pause.</summary>
        internal bool Pause()
        {
            if (_since == null)
            {
                _since = Stopwatch.StartNew();
            }
            if (_timeout != Timeout.InfiniteTimeSpan && _since.Elapsed >= _timeout)
            {
                return false;
            }
            _spin.SpinOnce();
            return true;
        }

        /// <summary>What is left of the timeout.</summary>
        internal TimeSpan Left
        {
            get
            {
                if (_since == null || _timeout == Timeout.InfiniteTimeSpan)
                {
                    return _timeout;
                }
                TimeSpan left = _timeout - _since.Elapsed;
                return left > TimeSpan.Zero ? left : TimeSpan.Zero;
            }
        }
    }
}
