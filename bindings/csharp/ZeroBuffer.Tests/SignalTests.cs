using Microsoft.Extensions.Logging;
using System;
using System.Diagnostics;
using System.Globalization;
using System.IO;
using System.Linq;
using System.Threading;
using System.Threading.Tasks;

namespace ZeroBuffer.Tests
{
    /// <summary>The runtime makes exceptions of faults, by signals. So no thread that runs a program's code may have them blocked.</summary>
    internal static class SignalTests
    {
        /// <summary>SIGSEGV and SIGFPE in the mask of a thread: null references, and divisions by zero.</summary>
        private const ulong Faults = (1 << 10) | (1 << 7);

        /// <summary>The signals that this thread has blocked.</summary>
        private static ulong Blocked()
        {
            const string Field = "SigBlk:";
            string line = File.ReadLines("/proc/thread-self/status").Single(one => one.StartsWith(Field, StringComparison.Ordinal));
            return ulong.Parse(line.Substring(Field.Length).Trim(), NumberStyles.HexNumber, CultureInfo.InvariantCulture);
        }

        [Test]
        private static void what_follows_a_call_runs_on_threads_that_notice_faults()
        {
            const int Calls = 64;
            string name = Channel.New();
            ThreadPool.GetMinThreads(out int workers, out int ports);
            // The pool starts threads at once, each on the thread that gives it work: those of the native library, too.
            ThreadPool.SetMinThreads(Calls, ports);
            try
            {
                using (InPlaceDuplexServer server = InPlaceDuplexServer.Create(name, BufferConfig.ForFrames(10, Calls)))
                using (DuplexClient client = Scene.Client(name))
                {
                    server.Start(frame => Thread.Sleep(5));
                    async Task<ulong> Call()
                    {
                        using (await client.CallAsync(new byte[10], Scene.Patience).ConfigureAwait(false))
                        {
                            ulong blocked = Blocked();
                            // So that the next one needs another thread.
                            Thread.Sleep(50);
                            return blocked;
                        }
                    }
                    ulong[] blocked = Task.WhenAll(Enumerable.Range(0, Calls).Select(_ => Call())).GetAwaiter().GetResult();
                    Check.Equal(0, blocked.Count(signals => (signals & Faults) != 0));
                }
            }
            finally
            {
                ThreadPool.SetMinThreads(workers, ports);
            }
        }

        /// <summary>What a program may well do.</summary>
        private sealed class Faulting : ILogger
        {
            internal int Caught;

            public IDisposable BeginScope<TState>(TState state) => null;

            public bool IsEnabled(LogLevel level) => true;

            public void Log<TState>(
                LogLevel level, EventId id, TState state, Exception error, Func<TState, Exception, string> format)
            {
                try
                {
                    string nothing = null;
                    Console.Error.Write(nothing.Length);
                }
                catch (NullReferenceException) when (level == LogLevel.Warning)
                {
                    Caught++;
                }
                catch (NullReferenceException)
                {
                }
            }
        }

        [Test]
        private static void a_program_lives_on_after_a_fault_in_its_logger_when_the_server_is_lost()
        {
            using (Process program = Runner.Begin(nameof(LogFaults), Channel.New()))
            {
                string said = program.StandardOutput.ReadToEnd();
                Check.That(program.WaitForExit((int)Scene.Patience.TotalMilliseconds), "it does not end");
                Check.That(said.EndsWith("lives\n", StringComparison.Ordinal) && program.ExitCode == 0, "it has ended with " + program.ExitCode + ": " + said);
            }
        }

        /// <summary>In a process of its own, which ends at once if the fault is not noticed.</summary>
        [Program]
        private static void LogFaults(string name)
        {
            var logger = new Faulting();
            using (var killed = new ServerProcess(name))
            using (DuplexClient client = Scene.Client(name, new ClientConfig { Logger = logger }))
            {
                Task<Response> call = client.CallAsync(new byte[ServerProcess.NeverAnswered], Scene.Patience);
                killed.AwaitTaken();
                killed.Kill();
                Check.That(Check.Throws<AggregateException>(() => call.Wait()).InnerException is PeerDiedException, "the server was killed");
                Check.Equal(1, logger.Caught);
            }
            Console.WriteLine("lives");
        }
    }
}
