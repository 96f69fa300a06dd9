using System;
using System.Runtime.CompilerServices;
using System.Threading;

namespace ZeroBuffer
{
    /// <summary>
    /// The responses of a client that were not disposed of. One that the program has forgotten stops the ring once that has gone
    /// round, and the collector, which knows nothing of the ring, may come much later: so it is called then. That is done
    /// by a thread of its own: it takes what time it takes, and a finalizer may wait for the very thread that asks for room.
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

        /// <summary>Whose responses they are. The thread that collects must not keep a client that was forgotten, too.</summary>
        private readonly WeakReference<ClientHandle> _client;

        private readonly long _ring;

        /// <summary>What a request takes of it at least: it is also full when it has as many as it may have, however short.</summary>
        private readonly long _least;
        private int _count;

        /// <summary>Room of the responses that have come while there was one all the time. Which of two threads wins does not matter.</summary>
        private long _passed;

        /// <summary>How many the collector has found, and how many before it was called last.</summary>
        private int _forgotten;
        private int _found = -1;

        /// <summary>Handles that hold nothing: the one that is taken first, and others for calls at the same time.</summary>
        private readonly ViewHandle?[] _others = new ViewHandle?[Kept - 1];
        private ViewHandle? _first;

        /// <summary>1 while there is a thread that collects.</summary>
        private int _isCollecting;

        private int _pause = Pause;
        private int _latest = Environment.TickCount - Pause;

        /// <summary>For a ring that has room for one request of so many bytes, or for so many requests.</summary>
        internal HeldResponses(ClientHandle client, long ring, int mostInFlight)
        {
            _client = new WeakReference<ClientHandle>(client);
            _ring = ring;
            _least = ring / mostInFlight;
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
            _passed += Room(bytes);
        }

        /// <summary>What so many bytes take of the ring.</summary>
        private long Room(long bytes) => Math.Max(bytes + Header, _least);

        internal void Remove()
        {
            if (Interlocked.Decrement(ref _count) == 0)
            {
                _passed = 0;
            }
        }

        internal bool IsEmpty => Volatile.Read(ref _count) == 0;

        /// <summary>The collector has found one.</summary>
        internal void Forgot() => Interlocked.Increment(ref _forgotten);

        /// <summary>
        /// For callers that ask for so many bytes: has what was forgotten collected, if the ring may have gone round. They wait for
        /// room as if it was not. <paramref name="places"/> is how many requests the ring has, if that is known.
        /// </summary>
        internal void MakeRoom(long bytes, long places = 0)
        {
            long room = Room(bytes);
            if (_passed > 0 && Math.Max(_passed, places * room) + room > _ring - _ring / 4
                && Interlocked.Exchange(ref _isCollecting, 1) == 0)
            {
                Elsewhere.Run("zerobuffer-collect", Collect);
            }
        }

        /// <summary>Again and again, as long as callers may be waiting for what others forget meanwhile.</summary>
        private void Collect()
        {
            do
            {
                Thread.Sleep(Math.Max(0, _latest + _pause - Environment.TickCount));
                bool isEmpty = IsEmpty;
                if (!isEmpty)
                {
                    Count();
                }
                // A caller that comes from here on starts the next thread, since it may have forgotten something meanwhile.
                Interlocked.Exchange(ref _isCollecting, 0);
                if (!isEmpty)
                {
                    // Nobody waits for the finalizers, one of which may wait for a caller. A call that waits for room is told.
                    GC.Collect();
                }
            }
            while (IsWanted() && Interlocked.Exchange(ref _isCollecting, 1) == 0);
        }

        private void Count()
        {
            _latest = Environment.TickCount;
            int before = Volatile.Read(ref _forgotten);
            _pause = before == _found ? Math.Min(2 * _pause, LongestPause) : Pause;
            _found = before;
        }

        /// <summary>On a frame of its own, which is no more when the collector is called: it must find the client.</summary>
        [MethodImpl(MethodImplOptions.NoInlining)]
        private bool IsWanted() => !IsEmpty && _client.TryGetTarget(out ClientHandle? client) && client.HasCallers;
    }
}
