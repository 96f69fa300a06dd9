using System;
using System.IO;
using System.Linq;

namespace ZeroBuffer
{
    /// <summary>Where the native library can be loaded.</summary>
    internal static class Platform
    {
        private const string Only = "ZeroBuffer runs on linux-x64 and linux-arm64 with glibc";

        /// <summary>
        /// What <paramref name="use"/>, the first use of the native library, returns. Programs on musl load the library for
        /// glibc without a word, and crash later.
        /// </summary>
        /// <exception cref="PlatformNotSupportedException">It cannot run here.</exception>
        internal static T First<T>(Func<T> use)
        {
            if (IsMusl())
            {
                throw new PlatformNotSupportedException(Only + "; this program has musl");
            }
            try
            {
                return use();
            }
            catch (DllNotFoundException error)
            {
                throw new PlatformNotSupportedException(
                    Only + ", and needs its libzerobuffer.so, which its package has: " + error.Message.Split('\n')[0], error);
            }
        }

        private static bool IsMusl()
        {
            const string Maps = "/proc/self/maps";
            return File.Exists(Maps) && File.ReadLines(Maps).Any(line => line.Contains("/ld-musl-"));
        }
    }
}
