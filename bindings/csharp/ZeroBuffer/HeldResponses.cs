using System;
using System.Threading;

namespace ZeroBuffer
{
    /// <summary>
    /// The responses of a client that were not disposed of. One that the program has forgotten stops the ring once that has gone
    /// round, and the collector, which knows nothing of the ring, may come much later: so it is called then.
    /// </summary>
    internal sealed class HeldResponses
    {
        /// <summary>What a response takes of the ring besides its bytes, at most.</summary>
        private const int Header = 128;

        /// <summary>Milliseconds between two collections: twice as many after each that found nothing more, up to a minute.</summary>
        private const int Pause = 100;
        private const int LongestPause = 60_000;

        /// <summary>How many handles are kept for the next responses.</summary>
        private const int Kept = 64;

        private readonly long _ring;
        private int _count;

        /// <summary>Bytes of the responses that have come while there was one all the time. Which of two threads wins does not matter.</summary>
        private long _passed;

        /// <summary>How many the collector has found, and how many before it was called last.</summary>
        private int _forgotten;
        private int _found = -1;

        /// <summary>Handles that hold nothing: the one that is taken first, and others for calls at the same time.</summary>
        private readonly ViewHandle?[] _others = new ViewHandle?[Kept - 1];
        private ViewHandle? _first;

        /// <summary>1 while a thread waits until it may collect.</summary>
        private int _isCollectedLater;

        private int _pause = Pause;
        private int _latest = Environment.TickCount - Pause;

        /// <summary>For a ring that has room for one request of so many bytes.</summary>
        internal HeldResponses(long ring)
        {
            _ring = ring;
        }

        /// <summary>A response with these bytes.</summary>
        internal Response Hold(in Native.View view) => new Response(view, Spare() ?? new ViewHandle(this));

        private ViewHandle? Spare()
        {
            ViewHandle? spare = Take(ref _first);
            for (int index = 0; spare == null && index < _others.Length; index++)
            {
                spare = Take(ref _others[index]);
            }
            return spare;
        }

        /// <summary>Only one thread gets it.</summary>
        private static ViewHandle? Take(ref ViewHandle? place)
        {
            ViewHandle? found = Volatile.Read(ref place);
            return found != null && Interlocked.CompareExchange(ref place, null, found) == found ? found : null;
        }

        /// <summary>
        /// For the next response; false if there are enough. Of two threads that find the same place one loses its handle, which
        /// holds nothing.
        /// </summary>
        internal bool Keep(ViewHandle handle)
        {
            if (Volatile.Read(ref _first) == null)
            {
                Volatile.Write(ref _first, handle);
                return true;
            }
            int place = Array.IndexOf(_others, null);
            if (place >= 0)
            {
                Volatile.Write(ref _others[place], handle);
            }
            return place >= 0;
        }

        internal void Add(long bytes)
        {
            Interlocked.Increment(ref _count);
            _passed += bytes + Header;
        }

        internal void Remove()
        {
            if (Interlocked.Decrement(ref _count) == 0)
            {
                _passed = 0;
            }
        }

        /// <summary>The collector has found one.</summary>
        internal void Forgot() => Interlocked.Increment(ref _forgotten);

        /// <summary>
        /// Before so many bytes are asked for: collects what was forgotten, if the ring may have gone round. Without
        /// <paramref name="wait"/> the room comes soon after. If it is too soon it does so later, for those who wait by then.
        /// </summary>
        internal void MakeRoom(long bytes, bool wait)
        {
            if (_passed > 0 && _passed + bytes > _ring - _ring / 4 && !Collect(wait)
                && Interlocked.Exchange(ref _isCollectedLater, 1) == 0)
            {
                Elsewhere.Run("zerobuffer-collect", CollectLater);
            }
        }

        private void CollectLater()
        {
            Thread.Sleep(Math.Max(0, Volatile.Read(ref _latest) + _pause - Environment.TickCount));
            Volatile.Write(ref _isCollectedLater, 0);
            Collect(false);
        }

        /// <summary>For somebody who has found no room: whether there may be some now.</summary>
        internal bool Collect(bool wait)
        {
            int latest = Volatile.Read(ref _latest);
            int now = Environment.TickCount;
            if (Volatile.Read(ref _count) == 0 || now - latest < _pause
                || Interlocked.CompareExchange(ref _latest, now, latest) != latest)
            {
                return false;
            }
            int before = Volatile.Read(ref _forgotten);
            _pause = before == _found ? Math.Min(2 * _pause, LongestPause) : Pause;
            _found = before;
            GC.Collect();
            if (wait)
            {
                GC.WaitForPendingFinalizers();
            }
            return Volatile.Read(ref _forgotten) != before;
        }
    }
}
