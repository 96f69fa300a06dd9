using System;
using System.Threading;

namespace ZeroBuffer
{
    /// <summary>
    /// Lets one thread at a time at a native handle that only one thread may use. Uncontended, it costs two
    /// atomic instructions; those who wait spin, and then sleep for a millisecond at a time.
    /// </summary>
    internal sealed class Gate
    {
        private int _taken;

        internal void Enter()
        {
            if (Interlocked.CompareExchange(ref _taken, 1, 0) != 0)
            {
                EnterSlowly();
            }
        }

        internal bool TryEnter()
        {
            return Interlocked.CompareExchange(ref _taken, 1, 0) == 0;
        }

        internal void Exit()
        {
            Volatile.Write(ref _taken, 0);
        }

        private void EnterSlowly()
        {
            var spin = new SpinWait();
            while (!TryEnter())
            {
                spin.SpinOnce();
            }
        }
    }
}
