using System;
using System.Diagnostics;
using System.Threading;

namespace ZeroBuffer
{
    /// <summary>
    /// How many threads are in the methods of an object, and whether it has ended, in one integer. Nobody enters after the
    /// end, one thread alone ends it, and the last thread to leave is told to free what the object holds.
    /// </summary>
    internal struct HandleLock
    {
        /// <summary>The sign; below it the number of threads inside.</summary>
        private const int Ended = int.MinValue;

        /// <summary>Where threads sleep until a lock changes: one for all locks, since few threads ever do.</summary>
        private static readonly object Changed = new object();
        private static int _sleepers;

        private readonly int _most;
        private int _state;
        private volatile bool _isFreed;

        /// <summary>Whether a wait is over, and well; null if it goes on.</summary>
        private delegate bool? Check(ref HandleLock one);

        /// <summary>For one thread at a time, or for many.</summary>
        internal HandleLock(bool many)
        {
            _most = many ? int.MaxValue : 1;
            _state = 0;
            _isFreed = false;
        }

        internal bool HasEnded => Volatile.Read(ref _state) < 0;

        internal int ThreadsInside => Volatile.Read(ref _state) & ~Ended;

        /// <summary>Waits for room inside; false if it has ended, or if the time has passed before.</summary>
        internal bool Enter(TimeSpan timeout) =>
            TryEnter() || Await((ref HandleLock one) => one.TryEnter() ? true : one.HasEnded ? false : (bool?)null, timeout);

        /// <summary>False if it has ended, or if there is no room inside.</summary>
        internal bool TryEnter() => Change(_most, 1, 0);

        /// <summary>
        /// Enters however many are inside, to do what goes beside them while nothing is freed, and leaves like any other;
        /// false if it has ended.
        /// </summary>
        internal bool Visit() => Change(int.MaxValue, 1, 0);

        /// <summary>True if it has ended, and this thread was the last one inside.</summary>
        internal bool Leave()
        {
            bool last = Interlocked.Decrement(ref _state) == Ended;
            Tell();
            return last;
        }

        /// <summary>Ends it, and lets this thread in, which leaves like any other; false if it has ended before.</summary>
        internal bool End()
        {
            bool ended = Change(int.MaxValue, 1, Ended);
            Tell();
            return ended;
        }

        /// <summary>For a thread that is inside: ends it, if that has not happened meanwhile.</summary>
        internal void EndInside()
        {
            Change(int.MaxValue, 0, Ended);
            Tell();
        }

        /// <summary>By one exchange, unless it has ended, or as many as <paramref name="most"/> are inside.</summary>
        private bool Change(int most, int entering, int mark)
        {
            int state = Volatile.Read(ref _state);
            while (state >= 0 && state < most)
            {
                int found = Interlocked.CompareExchange(ref _state, (state + entering) | mark, state);
                if (found == state)
                {
                    return true;
                }
                state = found;
            }
            return false;
        }

        /// <summary>For the thread that has ended it, and is inside: whether no other is.</summary>
        internal bool IsAlone => Volatile.Read(ref _state) == (Ended | 1);

        /// <summary>For the thread that has ended it, and is inside: until all others have left.</summary>
        internal void AwaitOthers()
        {
            if (!IsAlone)
            {
                Await((ref HandleLock one) => one.IsAlone ? true : (bool?)null, Timeout.InfiniteTimeSpan);
            }
        }

        /// <summary>Whether what the object holds was freed.</summary>
        internal bool IsFreed => _isFreed;

        /// <summary>For the thread that has freed it.</summary>
        internal void SetFreed()
        {
            _isFreed = true;
            Interlocked.MemoryBarrier();
            Tell();
        }

        /// <summary>Until it is freed.</summary>
        internal void AwaitFreed() => Await((ref HandleLock one) => one.IsFreed ? true : (bool?)null, Timeout.InfiniteTimeSpan);

        /// <summary>After a change by a locked instruction: either a sleeper has seen it, or this sees the sleeper.</summary>
        private static void Tell()
        {
            if (Volatile.Read(ref _sleepers) > 0)
            {
                lock (Changed)
                {
                    Monitor.PulseAll(Changed);
                }
            }
        }

        /// <summary>Spins for a moment, then sleeps from one change to the next; false also if the time has passed.</summary>
        private bool Await(Check check, TimeSpan timeout)
        {
            var since = Stopwatch.StartNew();
            bool? result = check(ref this);
            for (var spin = new SpinWait(); result == null && !spin.NextSpinWillYield; result = check(ref this))
            {
                spin.SpinOnce();
            }
            if (result != null)
            {
                return result.Value;
            }
            Interlocked.Increment(ref _sleepers);
            lock (Changed)
            {
                for (TimeSpan left = timeout; (result = check(ref this)) == null && left != TimeSpan.Zero;)
                {
                    Monitor.Wait(Changed, Interop.Waitable(left));
                    left = Interop.Left(timeout, since);
                }
            }
            Interlocked.Decrement(ref _sleepers);
            return result == true;
        }
    }
}
