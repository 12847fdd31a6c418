# The program in an image, for CPUs by default. docs/containers.md says how to use it.
#
#   docker build --tag ssd-jax .                                     # CPU
#   docker build --tag ssd-jax:cuda12 --build-arg EXTRA=[cuda12] .   # NVIDIA GPU

ARG PYTHON=3.12
FROM python:${PYTHON}-slim

# An extra of pyproject.toml in brackets. CUDA itself comes with the packages of this extra, the driver from the host.
ARG EXTRA=

# Compiled programs and fonts are kept here, because a user without a name has no home folder.
ENV XDG_CACHE_HOME=/var/cache/ssd-jax \
    MPLCONFIGDIR=/var/cache/ssd-jax/matplotlib \
    PIP_DISABLE_PIP_VERSION_CHECK=1
RUN mkdir --mode=1777 /var/cache/ssd-jax

COPY . /opt/ssd-jax
RUN pip install --no-cache-dir "/opt/ssd-jax${EXTRA}" \
    && useradd --uid 1000 --create-home user

# The folder of the host that holds images and runs is mounted here.
WORKDIR /data
USER 1000
ENTRYPOINT ["ssd-jax"]
CMD ["--help"]
