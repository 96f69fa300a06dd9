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

        private readonly int _most;
        private int _state;

        /// <summary>For one thread at a time, or for many.</summary>
        internal HandleLock(bool many)
        {
            _most = many ? int.MaxValue : 1;
            _state = 0;
        }

        internal bool HasEnded => Volatile.Read(ref _state) < 0;

        /// <summary>Waits for room inside; false if it has ended.</summary>
        internal bool Enter()
        {
            var spin = new SpinWait();
            while (!TryEnter())
            {
                if (HasEnded)
                {
                    return false;
                }
                spin.SpinOnce();
            }
            return true;
        }

        /// <summary>False if it has ended, or if there is no room inside.</summary>
        internal bool TryEnter() => Change(_most, 1, 0);

        /// <summary>
        /// Enters however many are inside, to do what goes beside them while nothing is freed, and leaves like any other;
        /// false if it has ended.
        /// </summary>
        internal bool Visit() => Change(int.MaxValue, 1, 0);

        /// <summary>True if it has ended, and this thread was the last one inside.</summary>
        internal bool Leave() => Interlocked.Decrement(ref _state) == Ended;

        /// <summary>Ends it, and lets this thread in, which leaves like any other; false if it has ended before.</summary>
        internal bool End() => Change(int.MaxValue, 1, Ended);

        /// <summary>For a thread that is inside: ends it, if that has not happened meanwhile.</summary>
        internal void EndInside() => Change(int.MaxValue, 0, Ended);

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
            var spin = new SpinWait();
            while (!IsAlone)
            {
                spin.SpinOnce();
            }
        }
    }
}
