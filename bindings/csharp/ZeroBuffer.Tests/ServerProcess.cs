using System;
using System.Diagnostics;
using System.Threading;

namespace ZeroBuffer.Tests
{
    /// <summary>A server in a process of its own, to be killed.</summary>
    internal sealed class ServerProcess : IDisposable
    {
        /// <summary>Bytes of a request that <see cref="ServeChannel"/> never answers.</summary>
        internal const int NeverAnswered = 60000;

        private readonly string _name;
        private readonly string _program;
        private Process _process;

        /// <summary>Runs <paramref name="program"/>, which has the attribute.</summary>
        internal ServerProcess(string name, string program = nameof(ServeChannel))
        {
            _name = name;
            _program = program;
            Start();
        }

        /// <summary>Starts it again, after it was killed or terminated.</summary>
        internal void Start()
        {
            _process?.Dispose();
            _process = Runner.Begin(_program, _name);
        }

        /// <summary>Inverts every byte.</summary>
        [Program]
        private static void ServeChannel(string name)
        {
            using (InPlaceDuplexServer server = InPlaceDuplexServer.Create(name, Scene.Sizes))
            {
                server.Start(frame =>
                {
                    if (frame.Length == NeverAnswered)
                    {
                        Console.WriteLine("taken");
                        Thread.Sleep(Timeout.Infinite);
                    }
                    Scene.Invert(frame);
                });
                Thread.Sleep(Timeout.Infinite);
            }
        }

        /// <summary>Waits until it has begun a request that it never answers.</summary>
        internal void AwaitTaken() => Check.Equal("taken", _process.StandardOutput.ReadLine());

        /// <summary>At once, as <c>kill -9</c>.</summary>
        internal void Kill()
        {
            _process.Kill();
            _process.WaitForExit();
        }

        /// <summary>As <c>kill</c>, until it has ended.</summary>
        internal void Terminate()
        {
            using (Process kill = Process.Start("kill", _process.Id.ToString()))
            {
                kill.WaitForExit();
            }
            _process.WaitForExit();
        }

        public void Dispose()
        {
            Kill();
            _process.Dispose();
            // The successor of a server that was killed removes its names.
            Scene.Inverter(_name).Dispose();
        }
    }
}
